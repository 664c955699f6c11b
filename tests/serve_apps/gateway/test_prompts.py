"""Several prompts of one call."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.errors import ClusterError, EngineFailed, Overloaded
from cluster.messages import Delta, Failure, Generate, Sampling, Usage
from serve_apps.gateway.prompts import calls_of, together
from tests.cluster.calls import events_of, finishes_of, generate, text_of, usage_of
from tests.serve_apps.conftest import chat_pool, eventually

RULES = [
    Rule(contains="first", reply="one two"),
    Rule(contains="second", reply="three"),
    Rule(contains="full", failure=Failure("Overloaded", "full")),
    Rule(contains="breaks", reply="a b c", failure=Failure("EngineFailed", "broke"), failure_after=2),
]


def calls(*prompts: str, n: int = 1, stream: bool = False, max_tokens: int = 9) -> list[Generate]:
    call = generate(stream=stream, sampling=Sampling(n=n), max_tokens=max_tokens)
    return calls_of(call, prompts)


async def idle(engine: FakeEngine) -> bool:
    return not (await engine.status()).running


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_numbered_prompt_by_prompt_and_usage_is_summed(stream: bool) -> None:
    engine = FakeEngine(FakeScript(rules=RULES))
    events = await events_of(together(chat_pool(engine), calls("the first", "second", n=2, stream=stream)))
    assert [text_of(events, index) for index in range(4)] == ["one two", "one two", "three", "three"]
    assert set(finishes_of(events)) == {0, 1, 2, 3}
    assert usage_of(events) == Usage(3, 6, engine_ns=usage_of(events).engine_ns)


def test_each_call_has_an_id_of_its_own() -> None:
    assert len({call.request_id for call in calls("a", "b", "c")}) == 3


async def test_streams_take_turns() -> None:
    engine = FakeEngine(FakeScript(token_s=0.01, output_tokens=6))
    events = await events_of(together(chat_pool(engine), calls("a", "b", stream=True)))
    heard = [event.index for event in events if isinstance(event, Delta)]
    assert heard != sorted(heard)


@pytest.mark.parametrize(("prompt", "kind"), [("full", Overloaded), ("breaks", EngineFailed)])
@pytest.mark.parametrize("stream", [False, True])
async def test_where_one_fails_all_end(prompt: str, kind: type[ClusterError], stream: bool) -> None:
    engine = FakeEngine(FakeScript(rules=RULES, token_s=0.02, output_tokens=400))
    with pytest.raises(kind):
        await events_of(
            together(chat_pool(engine), calls("at length", prompt, stream=stream, max_tokens=400))
        )
    await eventually(lambda: idle(engine))
    assert (await engine.status()).completed == 0


async def test_leaving_ends_all_of_them() -> None:
    engine = FakeEngine(FakeScript(token_s=0.02, output_tokens=400))
    async with aclosing(
        together(chat_pool(engine), calls("a", "b", "c", stream=True, max_tokens=400))
    ) as batches:
        await anext(batches)
        assert (await engine.status()).running == 3
    assert (await engine.status()).running == 0


async def test_a_cancelled_caller_ends_all_of_them() -> None:
    engine = FakeEngine(FakeScript(token_s=0.02, output_tokens=400))
    task = asyncio.create_task(events_of(together(chat_pool(engine), calls("a", "b", max_tokens=400))))

    async def both_run() -> bool:
        return (await engine.status()).running == 2

    await eventually(both_run)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await engine.status()).running == 0
