"""`llm` nodes on the fake engine: what is asked, what streams, what is owed."""

import asyncio
import time
from contextlib import aclosing

import msgspec
import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.errors import InvalidCall
from cluster.messages import Delta, Failure, Generate, Message, Sampling, Usage
from graphs.nodes.llm import Llm
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Resources
from runtime.executor.kinds.llm import prepare
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from tests.runtime.parts import Recorder, node_call


def run(spec: Llm, pool: Recorder, stream: bool = False, **inputs):
    scope = RunScope("run", time.time() + 30, "acme", 100, stream)
    queue = EventQueue()
    call = node_call(scope, queue, "answer", 7)
    given = {"prompt": "hi there", "history": []} | inputs
    return call, queue, prepare(spec, Resources({"m": pool}, {}))(call, given)


async def test_what_is_asked():
    pool = Recorder()
    spec = Llm(model="m", max_tokens=5, temperature=0.5, top_p=0.9, seed=3, stop=("\n",), system="Be brief.")
    history = [Message("user", "a"), {"role": "assistant", "content": "b"}]
    call, _, running = run(spec, pool, history=history)
    await running
    assert pool.calls == [
        Generate(
            request_id="run.answer",
            model="m",
            max_tokens=5,
            deadline=call.deadline,
            messages=[
                Message("system", "Be brief."),
                Message("user", "a"),
                Message("assistant", "b"),
                Message("user", "hi there"),
            ],
            sampling=Sampling(temperature=0.5, top_p=0.9, seed=3, stop=["\n"]),
            tenant="acme",
            priority=107,
            prompt_tokens=6,
            expected_tokens=3,
            session="run",
        )
    ]


async def test_an_engine_is_told_how_long_answers_of_the_node_have_been():
    pool = Recorder(FakeScript(output_tokens=10))
    _, _, running = run(Llm(model="m", max_tokens=100), pool)
    await running
    perform = prepare(Llm(model="m", max_tokens=100), Resources({"m": pool}, {}))
    for _ in range(30):
        scope = RunScope("run", time.time() + 30, "acme", 100, False)
        await perform(node_call(scope, EventQueue(), "answer", 0), {"prompt": "hi", "history": []})
    assert pool.calls[0].expected_tokens == 50
    assert 10 <= pool.calls[-1].expected_tokens <= 12


async def test_text_reason_and_usage():
    pool = Recorder(FakeScript(rules=[Rule(contains="hi", reply="one two three four")]))
    call, _, running = run(Llm(model="m", max_tokens=3), pool)
    assert await running == {"text": "one two three", "finish_reason": "length"}
    assert call.usage == Usage(2, 3)


async def test_a_prompt_of_its_own_is_rendered():
    pool = Recorder()
    spec = Llm(model="m", prompt="To {{ language }}: {{ text }}")
    _, _, running = run(spec, pool, language="French", text="hi")
    await running
    assert pool.calls[0].messages == [Message("user", "To French: hi")]


async def test_a_prompt_that_cannot_be_rendered():
    _, _, running = run(Llm(model="m", prompt="{{ a.b }}"), Recorder(), a={})
    with pytest.raises(NodeError, match="cannot be rendered"):
        await running


async def test_several_answers():
    pool = Recorder(FakeScript(rules=[Rule(contains="hi", reply="one two three")]))
    call, _, running = run(Llm(model="m", max_tokens=2, n=3), pool)
    assert await running == {"text": "one two", "finish_reason": "length", "texts": ["one two"] * 3}
    assert pool.calls[0].sampling.n == 3
    assert call.usage == Usage(2, 6)


SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}


async def test_an_answer_held_to_a_schema_comes_parsed():
    pool = Recorder()
    _, _, running = run(Llm(model="m", schema=SCHEMA), pool)
    outputs = await running
    assert outputs["data"] == {"label": "a"}
    assert msgspec.json.decode(outputs["text"]) == outputs["data"]
    assert pool.calls[0].sampling.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }


@pytest.mark.parametrize(
    ("reply", "max_tokens", "message"),
    [
        ('{"label": "a"}', 1, "cut off at 1 tokens"),
        ("label a", 9, "no JSON"),
        ("[" * 5000, 9, "no JSON"),
        ('{"label": "c"}', 9, r"does not fit the schema: \$\.label: 'c'"),
    ],
)
async def test_an_answer_that_does_not_keep_to_its_schema(reply, max_tokens, message):
    pool = Recorder(FakeScript(rules=[Rule(contains="hi", reply=reply)]))
    call, _, running = run(Llm(model="m", schema=SCHEMA, max_tokens=max_tokens), pool)
    with pytest.raises(NodeError, match=message):
        await running
    assert call.usage.completion_tokens > 0


@pytest.mark.parametrize(("node", "wanted"), [(True, True), (True, False), (False, True)])
async def test_streams_where_the_node_and_the_run_want_it(node, wanted):
    pool = Recorder(FakeScript(output_tokens=3))
    _, queue, running = run(Llm(model="m", stream=node), pool, stream=wanted)
    outputs = await running
    texts = [event.text for event in await queue.take() if hasattr(event, "text")]
    assert pool.calls[0].stream is (node and wanted)
    assert bool(texts) is (node and wanted)
    assert not texts or "".join(texts) == outputs["text"]


async def test_a_prompt_over_its_bound_is_refused_before_the_call():
    pool = Recorder()
    call, _, running = run(Llm(model="m", max_prompt_tokens=1), pool)
    with pytest.raises(InvalidCall, match="2 tokens, answer takes at most 1") as refused:
        await running
    assert refused.value.param == "answer"
    assert pool.calls == []
    assert call.usage == Usage()


@pytest.mark.parametrize(
    ("failure", "after", "usage"),
    [
        ("Overloaded", 0, Usage()),
        ("EngineFailed", 0, Usage(2)),
        ("EngineFailed", 3, Usage(2, 3)),
        ("Overloaded", 3, Usage(2, 3)),
    ],
)
async def test_a_failed_call_owes_what_was_seen(failure, after, usage):
    rule = Rule(contains="hi", reply="a b c d", failure=Failure(failure, "no"), failure_after=after)
    call, _, running = run(Llm(model="m", stream=True), Recorder(FakeScript(rules=[rule])), stream=True)
    with pytest.raises(Exception, match="no"):
        await running
    assert call.usage == usage


async def test_a_cancelled_call_owes_what_was_seen_and_is_aborted():
    pool = Recorder(FakeScript(output_tokens=50, token_s=0.01))
    call, queue, running = run(Llm(model="m", stream=True), pool, stream=True)
    task = asyncio.create_task(running)
    seen = []
    while len(seen) < 4:
        seen += await queue.take()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.usage.prompt_tokens == 2
    assert call.usage.completion_tokens >= 3
    assert (await pool.engine.status()).aborted == 1


async def test_history_from_a_constant_must_be_messages():
    _, _, running = run(Llm(model="m"), Recorder(), history=[{"role": "nobody"}])
    with pytest.raises(msgspec.ValidationError):
        await running


async def test_pieces_of_one_batch_are_one_delta():
    pool = Recorder(FakeScript(output_tokens=4, tokens_per_batch=4))
    _, queue, running = run(Llm(model="m", stream=True), pool, stream=True)
    await running
    assert len([event for event in await queue.take() if hasattr(event, "text")]) == 1
    async with aclosing(pool.generate(pool.calls[0])) as batches:
        assert [len([e for e in batch if isinstance(e, Delta)]) async for batch in batches] == [4, 0]
