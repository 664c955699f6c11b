"""`function` nodes in pipelines: read, checked and written."""

import pytest

from graphs.errors import PipelineError
from graphs.known import Known
from graphs.loader import load
from graphs.nodes.function import Function
from graphs.ports import INTEGER, STRING, Port
from graphs.writer import to_data, to_yaml

HERE = "tests.graphs.sample_functions"
FILE = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: loud}
inputs: {text: string}
nodes:
  loud:
    function: FUNCTION
    with: {text: "${inputs.text}"}
outputs: {text: "${loud.value}"}
"""


def file(function: str) -> str:
    return FILE.replace("FUNCTION", function)


def problems(text: str, **known):
    with pytest.raises(PipelineError) as refused:
        load(text, known=Known(**known))
    return refused.value.problems


@pytest.mark.parametrize("written", [f"{HERE}:shout", f"{{call: '{HERE}:shout'}}"])
def test_it_is_read_with_its_ports(written):
    loaded = load(file(written))
    spec = loaded.pipeline.nodes["loud"].spec
    assert isinstance(spec, Function)
    assert spec.takes == {
        "text": Port(STRING, description="what to say"),
        "times": Port(INTEGER, default=1),
    }
    assert (spec.gives, spec.effects) == ({"value": STRING}, "pure")


def test_it_is_written_as_its_name_and_read_back():
    pipeline = load(file(f"{HERE}:shout")).pipeline
    assert to_data(pipeline)["nodes"]["loud"]["function"] == f"{HERE}:shout"
    again = load(to_yaml(pipeline)).pipeline
    assert again == pipeline
    assert again.content_hash() == pipeline.content_hash()


@pytest.mark.parametrize(
    ("written", "message", "line", "column", "length"),
    [
        (f"{HERE}:shuot", f"{HERE} has no function shuot", 7, 45, 5),
        (f"{{call: '{HERE}:shuot'}}", f"{HERE} has no function shuot", 7, 53, 5),
        ("os:system", "os:system is not marked as one that pipelines may name", 7, 18, 6),
        ("no_such_module:f", "there is no module no_such_module", 7, 15, 14),
    ],
)
def test_a_function_that_cannot_be_named_is_the_only_problem(written, message, line, column, length):
    (problem,) = problems(file(written))
    assert (problem.code, problem.message) == ("bad-function", message)
    place = problem.position
    assert (place.line, place.column, place.length) == (line, column, length)


def test_settings_that_are_none():
    assert [problem.code for problem in problems(file("{name: x}"))] == ["missing", "unknown-field"]
    assert [problem.code for problem in problems(file("{call: x}"))] == ["bad-value"]
    assert [problem.code for problem in problems(file("[x]"))] == ["bad-value"]


def test_what_may_be_named_can_be_bounded_or_nothing_at_all():
    text = file(f"{HERE}:shout")
    assert load(text, known=Known(modules=("tests.graphs",))).pipeline.nodes
    (problem,) = problems(text, modules=("other",))
    assert problem.hint == "allowed: other"
    (problem,) = problems(text, modules=())
    assert problem.hint == "no functions may be named here"


def test_inputs_are_checked_as_those_of_any_kind():
    (problem,) = problems(file(f"{HERE}:shout").replace("text: string", "text: integer"))
    assert (problem.code, problem.message) == (
        "type-mismatch",
        "${inputs.text} is a integer, text takes a string",
    )


def test_a_value_in_its_place():
    one = Function("m:f", gives={"value": STRING})
    assert one.stand_in("x") == {"value": "x"}
    two = Function("m:f", gives={"head": STRING, "count": INTEGER})
    assert two.stand_in({"head": "x", "count": 1}) == {"head": "x", "count": 1}
    assert two.stand_in({"head": "x"}) is None
    assert two.stand_in("x") is None


def test_a_fallback_of_a_function_with_several_outputs():
    text = file(f"{HERE}:split").replace("${loud.value}", "${loud.head}")
    whole = text.replace("outputs:", "    fallback: [{value: {head: a, rest: []}}]\noutputs:")
    assert load(whole).pipeline.nodes["loud"].fallback
    assert problems(whole.replace("rest: []", "tail: []"))
