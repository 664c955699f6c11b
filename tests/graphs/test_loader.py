"""All mistakes of a file at once, what bounds them, and what is read from where."""

import time
from pathlib import Path

import pytest

from graphs.errors import PipelineError, Problem
from graphs.loader import MAX_PROBLEMS, load, load_file
from tests.graphs.broken import ANSWER, HEAD, PARTS, TAIL, problems_of, the_error


def test_positions_are_in_the_order_of_the_file():
    found = problems_of(HEAD + "  a: {lm: {}}\n  b: {value: '${x.y}'}\n" + ANSWER + TAIL)
    lines = [problem.position.line for problem in found]
    assert lines == sorted(lines)
    assert {problem.code for problem in found} == {"unknown-kind", "unknown-node"}


def test_cycle_is_shown_as_a_path():
    nodes = '  a: {value: "${c.value}"}\n  b: {value: "${a.value}"}\n  c: {value: "${b.value}"}\n'
    assert the_error(HEAD + nodes + ANSWER + TAIL).message == "nodes wait for each other: a → b → c → a"


def test_every_knot_is_reported():
    nodes = "".join(f'  {a}: {{value: "${{{b}.value}}"}}\n' for a, b in ("ab", "ba", "cd", "dc"))
    found = problems_of(HEAD + nodes + ANSWER + TAIL)
    assert [problem.code for problem in found if problem.severity == "error"] == ["cycle", "cycle"]


def test_an_unreadable_node_is_complained_of_once():
    nodes = "  a: {lm: {}}\n  b: {value: '${a.text}'}\n"
    assert the_error(HEAD + nodes + ANSWER + TAIL).code == "unknown-kind"


def test_references_of_an_unreadable_node_are_checked():
    nodes = "  a:\n    embed: {model: 7}\n    with: {text: '${nowhere.text}'}\n"
    codes = {problem.code for problem in problems_of(HEAD + nodes + ANSWER + TAIL)}
    assert {"bad-value", "unknown-node"} <= codes


def test_everything_at_once():
    text = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: bad}
inputs: {question: string, n: {type: intger}}
nodes:
  a:
    llm: {model: small, max_token: 3, temperature: 9}
    with: {prompt: "${inputs.qestion}"}
  p:
    prompt:
      template: |
        Hello {{ name }}
        {{ nme | uper }}
    with: {name: "${b.text}"}
  c: {value: "${d.value}"}
  d: {value: "${c.value}"}
outputs: {text: "${a.txt}"}
"""
    assert [(p.position.line, p.code) for p in problems_of(text)] == [
        (4, "unknown-type"),
        (7, "unknown-field"),
        (7, "bad-value"),
        (8, "unknown-input"),
        (13, "missing-input"),
        (13, "bad-template"),
        (14, "unknown-node"),
        (15, "cycle"),
        (17, "unknown-port"),
    ]


def test_unused_things_are_warnings():
    loaded = load(HEAD + "  spare: {value: 1}\n" + ANSWER + TAIL)
    found = [(p.code, p.severity, p.position.line, p.position.column) for p in loaded.warnings]
    assert found == [("unused-input", "warning", 4, 28), ("unused-node", "warning", 6, 3)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "3", "[]", "~"])
def test_no_pipeline(text):
    assert the_error(text).code in ("empty", "bad-value")


def test_problems_are_bounded():
    nodes = "".join(f"  n{i}: {{lm: {{}}}}\n" for i in range(500))
    assert len(problems_of(HEAD + nodes + ANSWER + TAIL)) == MAX_PROBLEMS


def test_values_that_multiply_are_refused():
    nodes = "  v0: {value: [1]}\n" + "".join(
        f'  v{i}: {{value: ["${{v{i - 1}.value}}", "${{v{i - 1}.value}}"]}}\n' for i in range(1, 40)
    )
    began = time.perf_counter()
    assert the_error(HEAD + nodes + ANSWER + TAIL).code == "too-large"
    assert time.perf_counter() - began < 100


def test_conditions_without_end_are_refused():
    nodes = "".join(
        f"  n{i}: {{value: 1, when: \"inputs.question == '{i:04}{'x' * 900}'\"}}\n" for i in range(3_000)
    )
    began = time.perf_counter()
    assert the_error(HEAD + nodes + ANSWER + TAIL).code == "too-large"
    assert time.perf_counter() - began < 60


def test_values_nested_without_end_are_refused():
    nodes = "  v0: {value: 1}\n" + "".join(
        f'  v{i}: {{value: ["${{v{i - 1}.value}}"]}}\n' for i in range(1, 60)
    )
    problem = the_error(HEAD + nodes + ANSWER + TAIL)
    assert (problem.code, problem.path) == ("too-large", ("nodes", "v32"))


def test_json_is_read_too():
    text = (
        '{"apiVersion": "clustergraph/v1", "kind": "Pipeline", "metadata": {"name": "j"},'
        ' "nodes": {"a": {"value": 1}}, "outputs": {"x": "${a.value}"}}'
    )
    assert load(text).pipeline.metadata.name == "j"


def test_load_file(tmp_path: Path):
    file = tmp_path / "demo.yaml"
    file.write_text("".join(PARTS.values()))
    assert load_file(file).pipeline.metadata.name == "demo"
    file.write_bytes(b"a: 1\nb: \xff")
    with pytest.raises(PipelineError) as refused:
        load_file(file)
    assert (refused.value.problems[0].message, refused.value.problems[0].position.line) == ("not UTF-8", 2)
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "none.yaml")


def test_places_of_later_problems():
    loaded = load("".join(PARTS.values()), "demo.yaml")
    problem = loaded.place(Problem("unknown-model", "", ("nodes", "answer", "llm", "model")))
    assert (problem.file, problem.position.line, problem.position.column) == ("demo.yaml", 7, 18)


def test_problems_with_unreadable_inputs_and_outputs_are_not_repeated():
    parts = PARTS | {
        "inputs": "inputs: {question: strng}\n",
        "outputs": "outputs: {text: hello}\n",
        "chat": "chat: {input: question, output: text}\n",
    }
    assert [problem.code for problem in problems_of("".join(parts.values()))] == [
        "unknown-type",
        "bad-reference",
    ]
