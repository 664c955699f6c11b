"""Digests and numbers."""

from graphs.bindings import Items, Literal, Record, Ref
from graphs.nodes.llm import Llm
from graphs.nodes.value import Value
from runtime.compiler.fingerprint import Defined, digest_of, fingerprint, number, structure

SPEC = Llm(model="m")


def test_digest_covers_spec_inputs_and_what_flows_in():
    base = digest_of(SPEC, {"prompt": Ref("a", "text")}, {"a": "1"})
    assert base == digest_of(SPEC, {"prompt": Ref("b", "text")}, {"b": "1"})
    others = [
        digest_of(Llm(model="n"), {"prompt": Ref("a", "text")}, {"a": "1"}),
        digest_of(SPEC, {"prompt": Ref("a", "other")}, {"a": "1"}),
        digest_of(SPEC, {"prompt": Ref("a", "text")}, {"a": "2"}),
        digest_of(SPEC, {"prompt": Literal("${a.text}")}, {"a": "1"}),
    ]
    assert len({base, *others}) == 5


def test_digest_does_not_depend_on_the_order_of_ports():
    one = {"a": Literal(1), "b": Record({"x": Ref("n", "v"), "y": Literal(2)})}
    two = {"b": Record({"y": Literal(2), "x": Ref("n", "v")}), "a": Literal(1)}
    assert digest_of(Value(), one, {}) == digest_of(Value(), two, {})


def test_numbers_follow_the_way_back_from_the_outputs():
    nodes = {
        "x": Defined(Value(), {"value": Literal(1)}),
        "y": Defined(Value(), {"value": Items((Ref("x", "value"), Ref("z", "value")))}),
        "z": Defined(Value(), {"value": Literal(2)}),
        "unused": Defined(Value(), {"value": Literal(3)}),
    }
    outputs = {"b": Ref("z", "value"), "a": Ref("y", "value")}
    numbers = number(outputs, nodes)
    assert numbers == {"y": 0, "x": 1, "z": 2}
    assert fingerprint(structure(outputs, nodes, numbers)) == fingerprint(structure(outputs, nodes, numbers))
