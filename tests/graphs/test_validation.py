"""Validation of pipelines that never were YAML, and the helpers that others use."""

import networkx as nx
import pytest
from hypothesis import given

from graphs.bindings import Items, Literal, Record, Ref
from graphs.builder import Builder
from graphs.checks.nodes import binding_place
from graphs.errors import PipelineError
from graphs.inference import binding_type, dependencies, reaching_outputs, typed
from graphs.nodes.llm import Llm
from graphs.nodes.map import Map
from graphs.nodes.value import Value
from graphs.pipeline import Metadata, Node, NodeId, Pipeline
from graphs.ports import ANY, EMBEDDING, INTEGER, NUMBER, STRING, Field, list_of, record_of
from graphs.validation import check
from tests.graphs.shapes import SHAPES, diamond, pipelines_with_bodies, rag, uneven


def test_shapes_are_right():
    for shape in SHAPES.values():
        assert check(shape()) == []


@given(pipelines_with_bodies())
def test_random_bodies_are_right(pipeline):
    assert [problem for problem in check(pipeline) if problem.severity == "error"] == []


def test_dependencies():
    edges = {("left", "join"), ("right", "join")}
    assert set(dependencies(diamond().nodes).edges) == edges


def test_reaching_outputs():
    graph = nx.DiGraph([("a", "b"), ("b", "c"), ("d", "c"), ("c", "e")])
    assert reaching_outputs(graph, [Ref("c", "text"), Ref("inputs", "x")]) == {"a", "b", "c", "d"}


def test_types_of_ports():
    assert typed(rag()).ports[NodeId("vector")] == {"embedding": EMBEDDING}
    assert set(typed(uneven()).ports) == {"fast", "then_fast", "slow"}


def test_binding_type():
    types = {Ref("a", "n"): INTEGER, Ref("a", "s"): STRING}
    assert binding_type(Literal("x"), types) == STRING
    assert binding_type(Ref("a", "n"), types) == INTEGER
    assert binding_type(Ref("b", "n"), types) is None
    assert binding_type(Items((Ref("a", "n"), Literal(1.5))), types) == list_of(NUMBER)
    assert binding_type(Items((Ref("b", "n"),)), types) == list_of(ANY)
    assert binding_type(Record({"x": Ref("a", "n")}), types) == record_of([Field("x", INTEGER)])


def test_places_of_bindings():
    assert binding_place(Node(Value()), "value") == ("value",)
    assert binding_place(Node(Map()), "over") == ("map", "over")
    assert binding_place(Node(Llm(model="m")), "prompt") == ("with", "prompt")


def test_an_empty_pipeline_lacks_everything():
    found = check(Pipeline(Metadata("x"), {}, {}))
    assert [problem.message for problem in found] == ["a pipeline needs nodes", "a pipeline needs outputs"]


def test_types_behind_a_cycle_are_unknown_and_not_complained_of():
    nodes = {
        NodeId("a"): Node(Value(), {"value": Ref("b", "value")}),
        NodeId("b"): Node(Value(), {"value": Ref("a", "value")}),
        NodeId("c"): Node(Llm(model="m"), {"prompt": Ref("a", "value")}),
    }
    found = check(Pipeline(Metadata("x"), nodes, {"text": Ref("c", "text")}))
    assert [problem.code for problem in found] == ["cycle"]


def test_constraints_that_say_nothing_of_a_type():
    b = Builder("x")
    b.output("q", b.value("v", [b.input("question", STRING, minimum=3, maxLength=True), 1]))
    with pytest.raises(PipelineError) as refused:
        b.build()
    assert [problem.code for problem in refused.value.problems] == ["unknown-field", "bad-value"]


def test_bad_names_of_outputs():
    nodes = {NodeId("a"): Node(Value(), {"value": Literal(1)})}
    (problem,) = check(Pipeline(Metadata("x"), nodes, {"a b": Ref("a", "value")}))
    assert (problem.code, problem.path) == ("bad-name", ("outputs", "a b"))


def test_too_many_nodes():
    nodes = {NodeId(f"n{i}"): Node(Value(), {"value": Literal(1)}) for i in range(10_001)}
    found = check(Pipeline(Metadata("x"), nodes, {"o": Ref("n0", "value")}))
    assert found[0].code == "too-large"
