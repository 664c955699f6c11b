"""Stage 1: every input is bound."""

from graphs.bindings import Literal
from graphs.pipeline import NodeId
from runtime.compiler.passes.validate import validate
from tests.graphs.shapes import chain, rag


def test_defaults_are_bound_and_said():
    draft = validate(chain(), None)
    assert draft.nodes[NodeId("answer")].inputs["history"] == Literal([])
    assert [(change.node, change.what) for change in draft.changes] == [("answer", "history = []")]


def test_what_is_given_stays():
    draft = validate(rag(), None)
    assert draft.nodes[NodeId("answer")].inputs == rag().nodes[NodeId("answer")].inputs
    assert draft.outputs == rag().outputs
    assert set(draft.graph.edges) == {("vector", "search"), ("search", "ask"), ("ask", "answer")}
