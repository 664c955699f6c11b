"""The graphs of a deploy config: what they may name is what it says, each other included."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.errors import ConfigError
from graphs.errors import PipelineError
from graphs.pipeline import Metadata
from graphs.writer import to_yaml
from serve_apps.pipelines import load_deployed, load_plans
from serve_apps.settings import load_settings
from tests.graphs.shapes import chain, inline_chain

HEAD = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: x}
inputs: {text: string}
"""
LOUD = (
    HEAD
    + """\
nodes:
  loud: {function: "tests.graphs.sample_functions:shout", with: {text: "${inputs.text}"}}
outputs: {text: "${loud.value}"}
"""
)
ASK = (
    HEAD
    + """\
nodes:
  ask:
    http: {url: "https://api.example.com/{q}", headers: {authorization: {env: TOKEN}}}
    with: {q: "${inputs.text}"}
outputs: {body: "${ask.body}"}
"""
)

USER = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: user}
inputs: {question: string}
nodes: {ask: {subgraph: {graph: inline-chain}, with: {question: '${inputs.question}'}}}
outputs: {text: '${ask.text}'}
"""


def plans(folder: Path, graph: str, settings: str = ""):
    (folder / "graph.yaml").write_text(graph)
    config = folder / "deploy.yaml"
    config.write_text(f"models: [{{name: tiny, engine: fake}}]\ngraphs: [graph.yaml]\n{settings}\n")
    return load_plans(load_settings(config))


@pytest.mark.parametrize("settings", ["", "functions: [tests.graphs]", "functions: [a, tests]"])
def test_functions_that_may_be_named(tmp_path: Path, settings: str) -> None:
    (step,) = plans(tmp_path, LOUD, settings)["x"].steps
    assert step.backend == "task"
    assert step.nodes[0].spec.effects == "pure"


@pytest.mark.parametrize("settings", ["functions: []", "functions: [tests.graph]"])
def test_functions_that_may_not(tmp_path: Path, settings: str) -> None:
    with pytest.raises(PipelineError, match=r"graph.yaml:6:.*sample_functions may not be named here"):
        plans(tmp_path, LOUD, settings)


def test_hosts_and_variables(tmp_path: Path) -> None:
    (step,) = plans(tmp_path, ASK, "http: {hosts: [api.example.com], env: [TOKEN]}")["x"].steps
    assert step.backend == "task"
    with pytest.raises(PipelineError) as refused:
        plans(tmp_path, ASK)
    assert [problem.code for problem in refused.value.problems] == ["unknown-host", "unknown-secret"]
    assert [problem.position.line for problem in refused.value.problems if problem.position] == [7, 7]


def test_no_secret_is_in_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "very-secret")
    made = plans(tmp_path, ASK, "http: {hosts: [api.example.com], env: [TOKEN]}")
    assert "very-secret" not in repr(made)
    assert "TOKEN" in repr(made)


PROMPT = """\
apiVersion: clustergraph/v1
kind: Prompt
metadata: {name: ask, version: 1.0.0}
labels: [stable]
template: "Q: {{ question }}"
"""
USES = (
    HEAD
    + """\
nodes:
  answer:
    llm: {model: tiny, prompt: prompts/ask}
    with: {question: "${inputs.text}"}
outputs: {text: "${answer.text}"}
"""
)


def test_graphs_use_the_prompts_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "ask.yaml").write_text(PROMPT)
    (step,) = plans(tmp_path, USES, "prompts: [ask.yaml]")["x"].steps
    assert "Q: {{ question }}" in repr(step.nodes[0].spec)


def test_mistakes_in_prompts_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "ask.yaml").write_text(PROMPT.replace("stable", "a b"))
    with pytest.raises(PipelineError, match=r"ask.yaml:4:\d+: error"):
        plans(tmp_path, USES, "prompts: [ask.yaml]")


def test_a_prompt_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts: cannot read .*gone.yaml: No such file"):
        plans(tmp_path, USES, "prompts: [gone.yaml]")


@pytest.fixture
def deployed(tmp_path):
    def settings(**graphs):
        for name, text in graphs.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        config = tmp_path / "deploy.yml"
        names = ", ".join(f"{tmp_path}/{name}.yaml" for name in graphs)
        config.write_text(f"models: [{{name: small, engine: fake, task: generate}}]\ngraphs: [{names}]\n")
        return load_settings(config)

    return settings


def test_graphs_can_use_each_other_in_any_order(deployed):
    plans = load_plans(deployed(user=USER, inner=to_yaml(inline_chain())))
    assert set(plans) == {"user", "inline-chain"}
    assert plans["user"].models == ()


def test_every_mistake_of_every_graph(deployed):
    inner = to_yaml(inline_chain()).replace("${n0.text}", "${n9.text}")
    with pytest.raises(PipelineError) as refused:
        load_plans(deployed(user=USER, inner=inner, chain=to_yaml(chain()).replace("small", "smal")))
    assert [problem.code for problem in refused.value.problems if problem.severity == "error"] == [
        "bad-graph",
        "unknown-node",
        "unknown-model",
    ]


def test_two_graphs_of_one_name(deployed):
    with pytest.raises(ConfigError, match="another file defines already"):
        load_plans(deployed(one=to_yaml(chain()), two=to_yaml(chain())))


def versioned(version: str) -> str:
    return to_yaml(replace(chain(), metadata=Metadata("chain", version)))


def test_several_versions_of_a_graph_are_there_side_by_side(deployed):
    versions = {"a": "1.9.0", "b": "1.10.0", "c": "2.0.0-rc.1"}
    files = {name: versioned(version) for name, version in versions.items()}
    plans = load_plans(deployed(**files, d=to_yaml(inline_chain())))
    assert list(plans) == ["chain", "chain@1.10.0", "chain@1.9.0", "chain@2.0.0-rc.1", "inline-chain"]
    assert plans["chain"] is plans["chain@1.10.0"]
    assert {name: plan.version for name, plan in plans.items() if "@" in name} == {
        "chain@1.10.0": "1.10.0",
        "chain@1.9.0": "1.9.0",
        "chain@2.0.0-rc.1": "2.0.0-rc.1",
    }


def test_a_subgraph_is_the_newest_version(deployed):
    old = replace(inline_chain(), metadata=Metadata("inline-chain", "1.0.0"))
    new = replace(inline_chain(), metadata=Metadata("inline-chain", "1.0.1"))
    loaded = load_deployed(deployed(user=USER, old=to_yaml(old), new=to_yaml(new)))
    assert loaded.deployed.known.graphs["inline-chain"].metadata.version == "1.0.1"
    versions = {"inline-chain@1.0.0", "inline-chain@1.0.1"}  # of several each can be named
    assert set(loaded.deployed.known.graphs) == {"user", "inline-chain", *versions}


def test_a_file_that_is_not_there(deployed, tmp_path):
    settings = deployed(one=to_yaml(chain()))
    (tmp_path / "one.yaml").unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        load_plans(settings)


def test_a_task_without_its_graph(deployed):
    settings = deployed(one=to_yaml(inline_chain()))
    right, wrong = ({"tasks": {"sums": name}} for name in ("inline-chain", "inline-chian"))
    with pytest.raises(ConfigError, match="no graph 'inline-chian'; there are: inline-chain"):
        load_plans(settings.model_copy(update=wrong))
    assert load_plans(settings.model_copy(update=right))


def test_traffic_to_a_version_that_is_not_there(deployed):
    settings = deployed(a=versioned("1.0.0"), b=versioned("1.1.0"))
    right, wrong = (
        {"traffic": {"graph/chain": {"graph/chain@1.0.0": 95.0, f"graph/chain@{trial}": 5.0}}}
        for trial in ("1.1.0", "1.2.0")
    )
    with pytest.raises(ConfigError, match=r"no 'graph/chain@1.2.0'; there are: graph/chain@1.0.0, "):
        load_plans(settings.model_copy(update=wrong))
    assert load_plans(settings.model_copy(update=right))
