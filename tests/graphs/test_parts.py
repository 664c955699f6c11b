"""Lists and records that are put together from references: each part is checked at its own place."""

import pytest

from graphs.errors import PipelineError
from graphs.known import Known
from graphs.loader import load

TAKES = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: takes}
inputs:
  person: "{name: string, age?: integer, tags?: list[string]}"
  words: {type: "list[string]", default: []}
nodes: {said: {value: ["${inputs.person}", "${inputs.words}"]}}
outputs: {o: "${said}"}
"""
GIVES = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: gives}
inputs: {text: string, number: integer, may: {type: "optional[string]", default: null}}
nodes:
  skipped: {value: "${inputs.text}", when: inputs.number > 3}
  it:
    subgraph: {graph: takes}
    with:
      WITH
outputs: {o: "${it.o}", m: "${inputs.may}", n: "${inputs.number}", t: "${inputs.text}"}
"""


def load_with(given):
    return load(GIVES.replace("WITH", given), known=Known({"takes": load(TAKES).pipeline}))


@pytest.mark.parametrize(
    "given",
    [
        'person: {name: "${inputs.text}"}',
        'person: {name: "${inputs.text}", age: 3, more: "${inputs.number}"}',
        'person: {name: x, tags: ["${inputs.text}", "y"]}',
        "person: {name: x, tags: [x]}",
    ],
)
def test_parts_that_fit(given):
    assert load_with(given).pipeline


@pytest.mark.parametrize(
    ("given", "message", "column"),
    [
        ('person: {name: "${inputs.number}"}', "${inputs.number} is a integer, name takes a string", 22),
        ('person: {name: "${inputs.text}", age: x}', "age: 'x' is not of type 'integer'", 45),
        ('person: {nme: "${inputs.text}"}', "person needs the field name, a string", 15),
        (
            'person: {name: x, tags: [a, "${inputs.number}"]}',
            "${inputs.number} is a integer, item 2 takes a string",
            35,
        ),
        (
            'person: {name: x, tags: ["${skipped}"]}',
            "${skipped.value} is a optional[string], item 1 takes a string",
            32,
        ),
        (
            'person: {name: "${inputs.may}"}',
            "${inputs.may} is a optional[string], name takes a string",
            22,
        ),
    ],
)
def test_parts_that_do_not(given, message, column):
    with pytest.raises(PipelineError) as refused:
        load_with(given)
    (problem,) = [each for each in refused.value.problems if each.severity == "error"]
    assert (problem.code, problem.message) == ("type-mismatch", message)
    assert (problem.position.line, problem.position.column) == (10, column)
    if "nme" in given:
        assert problem.hint == "did you mean nme?"
