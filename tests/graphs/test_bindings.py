"""Bindings: what is a reference, what is text, and that nothing is lost on the way to YAML and back."""

import pytest
from hypothesis import given

from graphs.bindings import BadReference, Items, Literal, Record, Ref, located, parse, references, render
from tests.graphs.shapes import JSON


@pytest.mark.parametrize(
    ("data", "binding"),
    [
        ("${a.text}", Ref("a", "text")),
        (" ${ inputs.q } ", Ref("inputs", "q")),
        ("${item}", Ref("item", "value")),
        ("${ some-node }", Ref("some-node", "value")),
        ("plain", Literal("plain")),
        ("$5", Literal("$5")),
        ("$${a.text}", Literal("${a.text}")),
        ("costs $${x}", Literal("costs ${x}")),
        ([1, "${a.b}"], Items((Literal(1), Ref("a", "b")))),
        ([1, [2]], Literal([1, [2]])),
        ({"x": "${a.b}", "y": None}, Record({"x": Ref("a", "b"), "y": Literal(None)})),
    ],
)
def test_parse(data, binding):
    assert parse(data) == binding


@pytest.mark.parametrize("text", ["${inputs}", "${context}", "${a.}", "${a.b.c}", "${}", "${1a.b}", "${a.b"])
def test_malformed_reference_is_refused(text):
    with pytest.raises(BadReference, match="is written"):
        parse(text)


def test_reference_inside_text_points_to_prompt_nodes():
    with pytest.raises(BadReference, match="prompt node"):
        parse("hello ${a.text}")


@given(JSON)
def test_any_constant_survives(value):
    assert parse(render(Literal(value))) == Literal(value)


def test_structures_survive():
    binding = Record({"a": Items((Ref("x", "y"), Literal("${"))), "b": Literal({"c": "$${"})})
    assert parse(render(binding)) == binding


def test_references_come_with_their_places():
    binding = parse({"a": ["${x.y}", "${x.y}"], "b": 1})
    assert list(references(binding)) == [Ref("x", "y"), Ref("x", "y")]
    assert list(located(binding, ("w",))) == [(("w", "a", 0), Ref("x", "y")), (("w", "a", 1), Ref("x", "y"))]
