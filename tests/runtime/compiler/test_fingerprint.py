"""Digests and numbers."""

from collections import ChainMap

from graphs.bindings import Items, Literal, Record, Ref
from graphs.nodes.llm import Llm
from graphs.nodes.value import Value
from graphs.pipeline import NodeId
from runtime.compiler.draft import DraftNode, Scope
from runtime.compiler.fingerprint import digest_of, fingerprint, number, structure

SPEC = Llm(model="m")


def digest(spec, inputs, names=()):
    return digest_of(DraftNode(spec, inputs), ChainMap(dict(names)))


def test_digest_covers_spec_inputs_and_what_flows_in():
    base = digest(SPEC, {"prompt": Ref("a", "text")}, {"a": "1"})
    assert base == digest(SPEC, {"prompt": Ref("b", "text")}, {"b": "1"})
    others = [
        digest(Llm(model="n"), {"prompt": Ref("a", "text")}, {"a": "1"}),
        digest(SPEC, {"prompt": Ref("a", "other")}, {"a": "1"}),
        digest(SPEC, {"prompt": Ref("a", "text")}, {"a": "2"}),
        digest(SPEC, {"prompt": Literal("${a.text}")}, {"a": "1"}),
    ]
    assert len({base, *others}) == 5


def test_digest_does_not_depend_on_the_order_of_ports():
    one = {"a": Literal(1), "b": Record({"x": Ref("n", "v"), "y": Literal(2)})}
    two = {"b": Record({"y": Literal(2), "x": Ref("n", "v")}), "a": Literal(1)}
    assert digest(Value(), one) == digest(Value(), two)


def test_numbers_follow_the_way_back_from_the_outputs():
    nodes = {
        NodeId("x"): DraftNode(Value(), {"value": Literal(1)}),
        NodeId("y"): DraftNode(Value(), {"value": Items((Ref("x", "value"), Ref("z", "value")))}),
        NodeId("z"): DraftNode(Value(), {"value": Literal(2)}),
        NodeId("unused"): DraftNode(Value(), {"value": Literal(3)}),
    }
    scope = Scope(nodes=nodes, outputs={"b": Ref("z", "value"), "a": Ref("y", "value")})
    assert number(scope) == {"y": 0, "x": 1, "z": 2}
    assert fingerprint(structure(scope)) == fingerprint(structure(scope))
