"""Which pools are better near each other."""

from graphs.nodes.llm import Llm
from runtime.compiler.compile import compile_pipeline
from tests.graphs.shapes import diamond, rag
from tests.runtime.compiler.bodies import SAMPLING, body, mapped, node, pipeline, search

LARGE = Llm(model="large", max_tokens=100)


def test_through_nodes_that_call_no_model():
    assert compile_pipeline(rag()).colocate == (("embedder", "small"),)


def test_nothing_is_handed_over():
    assert compile_pipeline(diamond()).colocate == ()
    assert compile_pipeline(search()).colocate == ()


def test_into_and_out_of_bodies_and_the_most_first():
    each = body({"each": node(LARGE, prompt="${item}")}, text="${each.text}")
    nodes = {
        "one": node(SAMPLING, prompt="${inputs.question}"),
        "all": mapped(["${one.text}"], each),
        "last": node(SAMPLING, prompt="${say.text}"),
        "say": node(Llm(model="small", prompt="{{ x }}", max_tokens=8), x="${all.text}"),
    }
    assert compile_pipeline(pipeline(nodes, text="${last.text}")).colocate == (
        ("large", "small"),
        ("small", "large"),
    )
