"""`clustergraph validate` and `explain`."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

import graphs
from graphs.reference import node_reference
from graphs.schema import language_schema
from graphs.writer import to_yaml
from runtime.compiler.compile import STAGES, compile_pipeline
from runtime.records.model import NodeRecord, RunRecord
from serve_apps.cli.graphs import app
from tests.graphs.shapes import conditional, inline_chain, ordered, rag

SUPPORT_RAG = Path(graphs.__file__).parent / "library" / "support-rag.yaml"

BROKEN = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: broken}
inputs: {question: string}
nodes:
  answer:
    llm: {model: small, max_token: 3}
    with:
\t  prompt: "${inputs.qestion}"
outputs: {text: "${answer.text}"}
""".replace("\t", "    ")

CONFIG = """\
models:
  - {name: small, engine: fake, task: generate}
  - {name: embedder, engine: fake, task: embed}
graphs: []
indexes: {}
"""


def run(*args, columns: int = 160):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [str(arg) for arg in args])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    return file


@pytest.fixture
def rag_file(tmp_path: Path) -> Path:
    file = tmp_path / "rag.yaml"
    file.write_text(to_yaml(rag()))
    return file


def test_validate_shows_every_mistake_where_it_is(broken):
    result = run("validate", broken)
    assert result.exit_code == 1
    assert result.stdout == (
        f"{broken}:7:25: error: unknown field max_token\n"
        "      llm: {model: small, max_token: 3}\n"
        "                          ^^^^^^^^^\n"
        "  hint: did you mean max_tokens?\n"
        f"{broken}:9:15: error: the pipeline has no input qestion\n"
        '        prompt: "${inputs.qestion}"\n'
        "                ^^^^^^^^^^^^^^^^^^^\n"
        "  hint: did you mean question?\n"
        "no --config: models and indexes are taken to exist\n"
    )


def test_validate_goes_on_after_a_bad_file(broken, tmp_path):
    result = run("validate", broken, tmp_path / "none.yaml", SUPPORT_RAG)
    assert result.exit_code == 1
    assert f"{tmp_path / 'none.yaml'}: error: No such file or directory" in result.stdout
    assert f"{SUPPORT_RAG}: ok: support-rag 1.0.0, 4 nodes, plan " in result.stdout


def test_validate_a_good_file():
    result = run("validate", SUPPORT_RAG)
    assert result.exit_code == 0
    assert "error" not in result.stdout


def test_warnings_do_not_fail(tmp_path):
    file = tmp_path / "warn.yaml"
    file.write_text(to_yaml(inline_chain()).replace("question: string", "question: string\n  spare: string"))
    result = run("validate", file)
    assert result.exit_code == 0
    assert "warning: the input spare is never used" in result.stdout


def test_graphs_of_one_folder_can_use_each_other(rag_file):
    outer = rag_file.with_name("outer.yaml")
    outer.write_text(
        "apiVersion: clustergraph/v1\nkind: Pipeline\nmetadata: {name: outer}\n"
        "inputs: {question: string}\ncontext: {reads: [sessionHistory]}\n"
        "nodes: {ask: {subgraph: {graph: rag}, with: {question: '${inputs.question}'}}}\n"
        "outputs: {text: '${ask.text}'}\n"
    )
    result = run("validate", outer)
    assert result.exit_code == 0
    assert "ok: outer 0.0.0" in result.output


def test_validate_against_a_deployment(rag_file, tmp_path):
    config = tmp_path / "deploy.yaml"
    config.write_text(CONFIG)
    result = run("validate", rag_file, "--config", config)
    assert result.exit_code == 1
    assert "error: there is no index manual" in result.stdout
    assert "taken to exist" not in result.stdout


def test_explain_prints_every_stage_and_the_plan(rag_file):
    result = run("explain", rag_file)
    assert result.exit_code == 0
    places = [result.stdout.index(f"{stage}: 4 nodes") for stage in STAGES]
    assert places == sorted(places)
    plan = compile_pipeline(rag())
    assert f"plan {plan.hash}: rag 0.0.0" in result.stdout
    assert "tokens of a run at most: 1408" in result.stdout
    assert "as a chat: question in, text out, streamed from answer" in result.stdout
    row = next(line for line in result.stdout.splitlines() if "answer" in line and "llm" in line)
    assert [cell.strip() for cell in row.split("│")[1:-2]] == [
        "answer",
        "llm",
        "pool small",
        "0",
        "ask",
        "1152",
    ]


def test_explain_up_to_a_stage(tmp_path):
    file = tmp_path / "chain.yaml"
    file.write_text(to_yaml(inline_chain()))
    result = run("explain", file, "--stage", "fuse")
    assert result.exit_code == 0
    assert "runs with n2" in result.stdout
    assert "both are cheap, and nobody else waits" in result.stdout
    assert "assign:" not in result.stdout


def test_explain_shows_conditions_and_order(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(to_yaml(conditional()))
    assert "size ( ${inputs.question} ) > 5" in run("explain", file, "--stage", "prune").stdout
    file.write_text(to_yaml(ordered()))
    assert "after first" in run("explain", file, "--stage", "prune").stdout


def test_explain_what_a_plan_becomes_on_ray(rag_file):
    result = run("explain", rag_file, "--stage", "ray")
    assert result.exit_code == 0
    assert "gateway ─► runner" in result.stdout
    assert "runner ─► pool small" in result.stdout
    row = next(line for line in result.stdout.splitlines() if "answer" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == ["answer", "Serve handle", "pool small"]


def test_explain_an_unknown_stage(rag_file):
    result = run("explain", rag_file, "--stage", "optimise")
    assert result.exit_code == 2
    assert "optimise" in result.output


def test_explain_the_difference_of_two_stages(tmp_path):
    file = tmp_path / "chain.yaml"
    file.write_text(to_yaml(inline_chain()))
    result = run("explain", file, "--diff", "dedupe", "fuse")
    assert result.exit_code == 0
    assert result.stdout.startswith("from dedupe to fuse: 3 differences\n")
    assert "group: alone → n2" in result.stdout
    assert (
        "from validate to resolve: 0 differences"
        in run("explain", file, "--diff", "validate", "resolve").stdout
    )


@pytest.mark.parametrize("diff", [("fuse", "dedupe"), ("fuse", "fuse"), ("fuse", "optimise")])
def test_explain_a_difference_of_what_is_no_pair(rag_file, diff):
    result = run("explain", rag_file, "--diff", *diff)
    assert result.exit_code == 2
    assert diff[1] in result.output


@pytest.mark.parametrize(
    ("form", "start"), [("mermaid", "flowchart LR\n"), ("dot", "digraph "), ("svg", "<svg ")]
)
def test_draw(rag_file, tmp_path, form, start):
    result = run("draw", rag_file, "--format", form)
    assert result.exit_code == 0
    assert result.stdout.startswith(start)
    output = tmp_path / "picture"
    assert run("draw", rag_file, "--format", form, "--output", output).exit_code == 0
    assert output.read_text() == result.stdout


def test_draw_a_stage(rag_file):
    assert "pool small" not in run("draw", rag_file).stdout
    assert "pool small" in run("draw", rag_file, "--stage", "assign").stdout
    assert run("draw", rag_file, "--stage", "optimise").exit_code == 2


def test_draw_what_is_too_large(tmp_path):
    file = tmp_path / "long.yaml"
    file.write_text(to_yaml(inline_chain(700)))
    result = run("draw", file, "--format", "svg")
    assert result.exit_code == 1
    assert "too many for a drawing" in result.stdout


def test_draw_a_broken_file(broken):
    result = run("draw", broken)
    assert result.exit_code == 1
    assert "unknown field max_token" in result.stdout


def test_schema_and_reference_print_what_is_published():
    assert json.loads(run("schema").stdout) == language_schema()
    assert run("reference").stdout == node_reference()


def test_explain_a_broken_file(broken):
    result = run("explain", broken)
    assert result.exit_code == 1
    assert "unknown field max_token" in result.stdout


def test_explain_against_a_deployment(rag_file, tmp_path):
    config = tmp_path / "deploy.yaml"
    config.write_text(CONFIG)
    result = run("explain", rag_file, "--config", config)
    assert result.exit_code == 1
    assert f"{rag_file}:" in result.stdout
    assert "there is no index manual" in result.stdout


def test_markup_in_a_pipeline_is_printed_as_it_is(tmp_path):
    file = tmp_path / "markup.yaml"
    file.write_text(
        "apiVersion: clustergraph/v1\nkind: Pipeline\nmetadata: {name: markup}\n"
        "nodes:\n  v: {value: '[red]x[/nope]'}\noutputs: {v: '${v.value}'}\n"
    )
    assert run("explain", file).exit_code == 0
    assert run("validate", file).exit_code == 0


RAN = RunRecord(
    *("r-1", "acme", "rag", "0.0.0", "hash", "succeeded", 1_000.0, 1_030.0, 1.2),
    nodes=[
        NodeRecord("vector", "embed", "succeeded", 0.0, 0.1),
        NodeRecord("answer", "llm", "succeeded", 0.2, 1.0),
    ],
)


def draw_run(file, gateway, *arguments):
    return run("draw", file, "--run", "r-1", "--url", gateway.url, "--key", "secret", *arguments)


@pytest.mark.parametrize("stage", [(), ("--stage", "order")])
def test_draw_in_the_colours_of_a_run(rag_file, gateway, stage):
    gateway.answer("GET /v1/runs/r-1", RAN)
    drawn = draw_run(rag_file, gateway, *stage)
    assert drawn.exit_code == 0
    assert "1.00 s" in drawn.output
    assert "classDef heat4" in drawn.output
    assert draw_run(rag_file, gateway, "--format", "svg").output.count("--heat4:") == 2
    assert gateway.asked[0] == ("GET /v1/runs/r-1", "Bearer secret")


def test_a_run_of_another_version_is_told_and_one_of_another_graph_refused(rag_file, gateway):
    gateway.answer("GET /v1/runs/r-1", msgspec.structs.replace(RAN, version="9.9.9"))
    older = draw_run(rag_file, gateway)
    assert older.exit_code == 0
    assert "the run was of version 9.9.9, this is 0.0.0" in older.stderr
    gateway.answer("GET /v1/runs/r-1", msgspec.structs.replace(RAN, graph="other"))
    other = draw_run(rag_file, gateway)
    assert other.exit_code == 2
    assert "that is a run of other, not of rag" in other.output


def test_functions_are_held_to_those_of_the_config(tmp_path):
    nodes = 'nodes: {loud: {function: "tests.graphs.sample_functions:shout", with: {text: "${inputs.q}"}}}'
    pipeline = tmp_path / "loud.yaml"
    pipeline.write_text(
        "apiVersion: clustergraph/v1\nkind: Pipeline\nmetadata: {name: loud}\n"
        f'inputs: {{q: string}}\n{nodes}\noutputs: {{text: "${{loud.value}}"}}\n'
    )
    config = tmp_path / "deploy.yaml"
    config.write_text(CONFIG + "functions: [other]\n")
    assert CliRunner().invoke(app, ["validate", str(pipeline)]).exit_code == 0
    refused = CliRunner().invoke(app, ["validate", "--config", str(config), str(pipeline)])
    assert refused.exit_code == 1
    assert "hint: allowed: other" in refused.output


PROMPT = """\
apiVersion: clustergraph/v1
kind: Prompt
metadata: {name: ask, version: 1.0.0}
labels: [stable]
template: "Q: {{ question }}"
"""
USES_A_PROMPT = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: uses}
inputs: {question: string}
nodes:
  answer:
    llm: {model: small, prompt: prompts/ask}
    with: {question: "${inputs.question}"}
outputs: {text: "${answer.text}"}
"""


@pytest.fixture
def uses_a_prompt(tmp_path: Path) -> Path:
    """A graph, the folder of prompts beside it."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "ask.yaml").write_text(PROMPT)
    file = tmp_path / "uses.yaml"
    file.write_text(USES_A_PROMPT)
    return file


def test_prompts_beside_the_graph_are_found(uses_a_prompt):
    assert run("validate", uses_a_prompt).exit_code == 0
    assert "prompts/ask is version 1.0.0" in run("explain", uses_a_prompt).output


def test_prompts_of_the_config_are_found(uses_a_prompt):
    config = uses_a_prompt.parent / "deploy.yaml"
    config.write_text(CONFIG)
    refused = run("validate", uses_a_prompt, "--config", config)
    assert refused.exit_code == 1
    assert "there is no prompt ask" in refused.output
    config.write_text(CONFIG + "prompts: [prompts/ask.yaml]\n")
    assert run("validate", uses_a_prompt, "--config", config).exit_code == 0


def test_validate_takes_prompts_too(uses_a_prompt):
    prompt = uses_a_prompt.parent / "prompts" / "ask.yaml"
    result = run("validate", prompt, uses_a_prompt)
    assert result.exit_code == 0
    assert f"{prompt}: ok: prompt ask 1.0.0, stable" in result.output
    prompt.write_text(PROMPT.replace("question }}", "question | nope }}"))
    result = run("validate", prompt)
    assert result.exit_code == 1
    assert f"{prompt}:5:29: error: unknown filter nope" in result.output


def test_a_mistake_in_a_prompt_is_shown_in_its_own_file(uses_a_prompt):
    prompt = uses_a_prompt.parent / "prompts" / "ask.yaml"
    prompt.write_text(PROMPT.replace("question }}", "question | nope }}"))
    result = run("validate", uses_a_prompt)
    assert result.exit_code == 1
    assert f"{prompt}:5:29: error: unknown filter nope" in result.output
    assert 'template: "Q: {{ question | nope }}"' in result.output
