"""Stage 6: every node has a place."""

from msgspec.structs import replace

from graphs.builder import Builder
from graphs.functions import spec_of
from graphs.pipeline import Fallback
from graphs.ports import STRING
from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.fuse import fuse
from runtime.compiler.passes.validate import validate
from tests.graphs.shapes import inline_chain, rag


def test_models_in_pools_the_rest_inline():
    draft = assign(validate(rag(), None))
    assert {name: (node.backend, node.pool) for name, node in draft.nodes.items()} == {
        "vector": ("pool", "embedder"),
        "search": ("inline", None),
        "ask": ("inline", None),
        "answer": ("pool", "small"),
    }
    assert {change.node: change.what for change in draft.changes}["vector"] == "pool embedder"


def test_what_has_policies_is_a_task_of_its_own():
    chain = inline_chain(3)
    careful = replace(chain.nodes["n1"], fallback=(Fallback(value="?"),))
    draft = validate(replace(chain, nodes={**chain.nodes, "n1": careful}), None)
    placed = assign(fuse(draft))
    assert [(node.backend, node.group) for node in placed.nodes.values()] == [
        ("inline", None),
        ("task", None),
        ("inline", None),
    ]
    assert {change.node: change.reason for change in placed.changes}["n1"] == "its policies may await"


def test_a_function_that_takes_batches_meets_other_runs():
    b = Builder("x")
    size = spec_of("tests.graphs.sample_functions:sizes")
    b.output("size", b.add("size", size, texts=b.input("page", STRING))["value"])
    (change,) = assign(validate(b.build(), None)).changes
    assert (change.what, change.reason) == ("task", "meets what other runs ask of it in its batches")
