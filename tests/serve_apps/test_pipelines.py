"""The graphs of a deploy config: what they may name is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from graphs.errors import PipelineError
from serve_apps.pipelines import load_plans
from serve_apps.settings import load_settings

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
