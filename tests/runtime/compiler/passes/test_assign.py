"""Stage 6: every node has a place."""

from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.validate import validate
from tests.graphs.shapes import rag


def test_models_in_pools_the_rest_inline():
    draft = assign(validate(rag(), None))
    assert {name: (node.backend, node.pool) for name, node in draft.nodes.items()} == {
        "vector": ("pool", "embedder"),
        "search": ("inline", None),
        "ask": ("inline", None),
        "answer": ("pool", "small"),
    }
    assert {change.node: change.what for change in draft.changes}["vector"] == "pool embedder"
