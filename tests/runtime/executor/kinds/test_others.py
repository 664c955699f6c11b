"""`embed`, `retrieve`, `prompt` and `value` nodes."""

import time

import pytest
from msgspec.structs import replace

from cluster.errors import InvalidCall
from cluster.messages import Usage
from graphs.fields import example
from graphs.nodes.embed import Embed
from graphs.nodes.prompt import Prompt
from graphs.nodes.registry import KINDS
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.value import Value
from runtime.errors import NodeError
from runtime.executor.call import Call
from runtime.executor.kinds.kind import Resources
from runtime.executor.kinds.registry import evaluator, performer, runs_inline
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from tests.runtime.parts import DIMENSION, Shelf, embedder, generator, node_call

RESOURCES = Resources({"embedder": embedder(), "m": generator("m")}, {"manual": Shelf()})


def a_call() -> Call:
    return node_call(RunScope("run", time.time() + 30, "", 0, False), EventQueue(), "vector", 0)


async def test_embed():
    call = a_call()
    outputs = await performer(Embed(model="embedder"), RESOURCES)(call, {"text": "one two"})
    assert len(outputs["embedding"]) == DIMENSION
    assert call.usage == Usage(2)


async def test_embed_refuses_a_text_over_its_bound():
    perform = performer(Embed(model="embedder", max_prompt_tokens=2), RESOURCES)
    with pytest.raises(InvalidCall, match="3 tokens, vector takes at most 2"):
        await perform(a_call(), {"text": "one two three"})


def test_retrieve():
    evaluate = evaluator(Retrieve(index="manual"), RESOURCES)
    outputs = evaluate({"embedding": [1.0], "top_k": 2.0})
    assert [document.id for document in outputs["documents"]] == ["0", "1"]


@pytest.mark.parametrize("top_k", [0, 101])
def test_retrieve_refuses_a_count_out_of_bounds(top_k):
    with pytest.raises(NodeError, match="from 1 to 100"):
        evaluator(Retrieve(index="manual"), RESOURCES)({"embedding": [1.0], "top_k": top_k})


def test_prompt():
    evaluate = evaluator(Prompt(template="Q: {{ q }}"))
    assert evaluate({"q": "why"}) == {"text": "Q: why"}
    with pytest.raises(NodeError, match="'q' is undefined"):
        evaluate({})


def test_value():
    assert evaluator(Value())({"value": [1]}) == {"value": [1]}


def test_every_kind_runs_in_one_of_the_two_ways():
    resources = Resources({"x": generator("x")}, {"x": Shelf()}, servers={"x": object()})
    for name, kind in KINDS.items():
        there = {"call": "tests.graphs.sample_functions:shout"} if name == "function" else {}
        spec = replace(example(kind), **there)
        prepare = evaluator if runs_inline(spec) else performer
        assert callable(prepare(spec, resources))
