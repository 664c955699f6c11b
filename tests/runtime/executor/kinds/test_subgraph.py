"""`subgraph`: inputs in, outputs out."""

import asyncio

import pytest

from cluster.engines.fake import FakeScript
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.value import Value
from graphs.ports import ANY, Port
from runtime.events import NodeStarted
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import events_of, generator


def inside_out():
    """word, n ─► sub: (say ─► text, extra when it is asked for) ─► text, extra"""
    say = node("say", Prompt(template="{{ word }}{{ n }}"), word="${inputs.word}", n="${inputs.n}")
    extra = node("extra", Value(), value="${inputs.n}", when="inputs.word == 'more'")
    spec = Subgraph(graph="other", ports={"word": Port(ANY), "n": Port(ANY)})
    inner = body(say, extra, text="${say.text}", extra="${extra.value}")
    sub = node("sub", spec, {"body": inner}, word="${inputs.q}", n=3)
    return plan(sub, inputs=("q",), text="${sub.text}", extra="${sub.extra}")


async def test_inputs_go_in_and_outputs_come_out():
    assert await outputs_of(inside_out(), q="more") == {"text": "more3", "extra": 3}
    assert await outputs_of(inside_out(), q="less") == {"text": "less3", "extra": None}


async def test_its_nodes_are_named_after_it():
    events = await events_of(runner_of(inside_out()), asked(q="less"))
    assert [event.node for event in events if isinstance(event, NodeStarted)] == ["sub", "sub.say"]


async def test_cancelling_a_run_reaches_the_engines_of_subgraphs_in_subgraphs():
    small = generator("small", FakeScript(first_token_s=60))
    spec = Subgraph(graph="other", ports={"word": Port(ANY)})
    say = node("say", Llm(model="small"), prompt="${inputs.word}", history=[])
    inner = node("inner", spec, {"body": body(say, text="${say.text}")}, word="${inputs.word}")
    outer = node("outer", spec, {"body": body(inner, text="${inner.text}")}, word="${inputs.q}")
    runner = runner_of(plan(outer, inputs=("q",), text="${outer.text}"), small=small)
    run = asyncio.create_task(events_of(runner, asked(q="why")))
    while not (await small.engine.status()).running:
        assert not run.done(), run.result()
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    status = await small.engine.status()
    assert (status.running, status.aborted) == (0, 1)
