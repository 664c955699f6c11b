from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from cluster.engines import serving
from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.engines.serving import EngineEndpoint, coalesce
from cluster.errors import EngineFailed, InvalidCall
from cluster.interface import Batch
from cluster.messages import (
    Delta,
    Embed,
    Embeddings,
    EngineStatus,
    Event,
    Failure,
    Generate,
    Usage,
    decode_embeddings,
    decode_events,
    decode_status,
    encode,
)
from tests.cluster.calls import chat, embed


class Source:
    """Batches that come when a test says so, and what became of them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch | Exception | None] = asyncio.Queue()
        self.taken = 0
        self.closed = False

    def put(self, *texts: str) -> None:
        self.queue.put_nowait([Delta(text) for text in texts])

    def end(self, error: Exception | None = None) -> None:
        self.queue.put_nowait(error)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self.taken += 1
                yield item
        finally:
            self.closed = True


async def _next(items: AsyncGenerator[Batch, None]) -> Batch:
    return await anext(items)


def timeless(event: Any) -> Any:
    """The event without the time of the engine, which is never twice the same."""
    return msgspec.structs.replace(event, engine_ns=0)


async def settle() -> None:
    """Lets every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta)]


async def test_a_reader_that_keeps_up_gets_each_batch_as_it_comes() -> None:
    source = Source()
    async with aclosing(coalesce(source.batches())) as items:
        for text in "abc":
            source.put(text)
            assert texts(await _next(items)) == [text]


async def test_batches_merge_in_order_while_the_reader_is_busy() -> None:
    source = Source()
    async with aclosing(coalesce(source.batches())) as items:
        source.put("a")
        assert texts(await _next(items)) == ["a"]
        source.put("b", "c")
        source.put("d")
        source.end()
        await settle()
        assert texts(await _next(items)) == ["b", "c", "d"]
        assert await anext(items, None) is None
    assert source.closed


async def test_an_error_comes_after_the_events_before_it() -> None:
    source = Source()
    source.put("a")
    source.end(EngineFailed("broke"))
    items = coalesce(source.batches())
    assert texts(await _next(items)) == ["a"]
    with pytest.raises(EngineFailed, match="broke"):
        await _next(items)
    assert source.closed


async def test_a_source_without_batches_ends_at_once() -> None:
    source = Source()
    source.end()
    assert [item async for item in coalesce(source.batches())] == []


async def test_a_source_that_never_waits_is_read_to_its_end() -> None:
    async def batches() -> AsyncGenerator[Batch, None]:
        for number in range(3 * serving.MAX_BUFFERED_EVENTS):
            yield [Delta(str(number))]

    items = [events async for events in coalesce(batches())]
    assert [text for events in items for text in texts(events)] == [
        str(number) for number in range(3 * serving.MAX_BUFFERED_EVENTS)
    ]
    assert max(map(len, items)) <= serving.MAX_BUFFERED_EVENTS


async def test_a_slow_reader_holds_the_source_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_BUFFERED_EVENTS", 4)
    source = Source()
    for number in range(20):
        source.put(str(number))
    source.end()
    async with aclosing(coalesce(source.batches())) as items:
        seen = texts(await _next(items))
        await settle()
        assert source.taken <= len(seen) + 4
        async for events in items:
            assert len(events) <= 4
            seen += texts(events)
            await settle()
    assert seen == [str(number) for number in range(20)]


@pytest.mark.parametrize("queued", [0, 20])
async def test_closing_closes_the_source(monkeypatch: pytest.MonkeyPatch, queued: int) -> None:
    """Whether the source waits for its next batch or for room."""
    monkeypatch.setattr(serving, "MAX_BUFFERED_EVENTS", 4)
    source = Source()
    source.put("a")
    items = coalesce(source.batches())
    await _next(items)
    for _ in range(queued):
        source.put("b")
    await settle()
    await items.aclose()
    assert source.closed


async def test_a_cancelled_reader_closes_the_source() -> None:
    source = Source()
    source.put("a")
    items = coalesce(source.batches())
    await _next(items)
    reader = asyncio.create_task(_next(items))
    await settle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert source.closed


class Endpoint(EngineEndpoint):
    def __init__(self, engine: FakeEngine) -> None:
        self.served = engine


class Broken(FakeEngine):
    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        yield [Delta("one")]
        raise ZeroDivisionError("a secret")

    async def embed(self, call: Embed) -> Embeddings:
        raise ZeroDivisionError("a secret")


def endpoint(*rules: Rule, **script: float) -> Endpoint:
    return Endpoint(FakeEngine(FakeScript(rules=[*rules], **script)))  # type: ignore[arg-type]


async def stream_of(replica: Endpoint, call: Generate | Embed) -> list[Event]:
    async with aclosing(replica.stream(encode(call))) as items:
        return [event async for item in items for event in decode_events(item)]


HELLO = Rule(contains="", reply="Hello to you.")
FULL = Rule(
    contains="", reply="one two", failure=Failure("Overloaded", "full", retry_after_s=2.0), failure_after=1
)


async def test_a_stream_and_a_whole_answer_carry_the_same() -> None:
    replica = endpoint(HELLO)
    streamed = await stream_of(replica, chat(stream=True))
    whole = decode_events(await replica.call(encode(chat())))
    assert "".join(texts(streamed)) == "".join(texts(whole)) == "Hello to you."
    assert timeless(streamed[-1]) == timeless(whole[-1]) == Usage(1, 3)


async def test_embeddings_are_called() -> None:
    reply = decode_embeddings(await endpoint().call(encode(embed("a b", "c"))))
    assert isinstance(reply, Embeddings)
    reply = msgspec.structs.replace(reply, usage=timeless(reply.usage))
    assert reply == await FakeEngine().embed(embed("a b", "c"))


async def test_a_failure_is_the_last_event_of_a_stream() -> None:
    first, failure = await stream_of(endpoint(FULL), chat(stream=True))
    assert (timeless(first), failure) == (Delta("one"), Failure("Overloaded", "full", retry_after_s=2.0))


async def test_a_whole_answer_that_fails_is_the_failure_alone() -> None:
    assert decode_events(await endpoint(FULL).call(encode(chat()))) == [FULL.failure]


@pytest.mark.parametrize("late_s", [-1.0, 0.05])
async def test_a_passed_deadline_is_a_failure_everywhere(late_s: float) -> None:
    replica = endpoint(first_token_s=9.0)
    [streamed] = await stream_of(replica, chat(stream=True, deadline=time.time() + late_s))
    [whole] = decode_events(await replica.call(encode(chat(deadline=time.time() + late_s))))
    embedded = decode_embeddings(await replica.call(encode(embed("a", deadline=time.time() + late_s))))
    for failure in (streamed, whole, embedded):
        assert isinstance(failure, Failure)
        assert failure.kind == "DeadlineExceeded"
    assert decode_status(await replica.status()).running == 0


async def test_a_surprise_tells_its_kind_only() -> None:
    replica = Endpoint(Broken())
    first, failure = await stream_of(replica, chat(stream=True))
    assert timeless(first) == Delta("one")
    [whole] = decode_events(await replica.call(encode(chat())))
    embedded = decode_embeddings(await replica.call(encode(embed("a"))))
    for told in (failure, whole, embedded):
        assert told == Failure("EngineFailed", "the engine of m failed: ZeroDivisionError")


async def test_embeddings_do_not_stream() -> None:
    [failure] = await stream_of(endpoint(), embed("a"))
    assert isinstance(failure, Failure)
    assert failure.kind == InvalidCall.__name__


async def test_closing_a_stream_aborts_the_call() -> None:
    replica = endpoint(token_s=0.01, output_tokens=1000)
    async with aclosing(replica.stream(encode(chat(stream=True, max_tokens=1000)))) as items:
        await anext(items)
        assert decode_status(await replica.status()).running == 1
    status = decode_status(await replica.status())
    assert (status.running, status.aborted) == (0, 1)


async def test_a_replica_says_how_it_is() -> None:
    replica = endpoint()
    assert decode_status(await replica.status()) == EngineStatus()
    await replica.check_health()

    async def broken() -> None:
        raise EngineFailed("dead")

    replica.served.check_health = broken  # type: ignore[method-assign]
    with pytest.raises(EngineFailed, match="dead"):
        await replica.check_health()


async def test_calls_that_share_an_engine_are_told_parts_that_add_up_to_its_time() -> None:
    endpoint = Endpoint(FakeEngine(FakeScript(output_tokens=4, token_s=0.02)))
    calls = [chat(f"question {number}", stream=False) for number in range(3)]
    replies = await asyncio.gather(
        *(endpoint.call(encode(call)) for call in calls), endpoint.call(encode(embed("a")))
    )
    parts = [decode_events(reply)[-1].engine_ns for reply in replies[:3]]
    parts.append(decode_embeddings(replies[3]).usage.engine_ns)
    status = decode_status(await endpoint.status())
    assert all(parts)
    assert 0 <= status.busy_ns - sum(parts) < 4
    assert status.untold_ns == 0


async def test_the_time_of_a_stream_that_is_cut_off_is_told_on_the_way_and_counted() -> None:
    endpoint = Endpoint(FakeEngine(FakeScript(output_tokens=1000, first_token_s=0.01, token_s=30)))
    async with aclosing(endpoint.stream(encode(chat("a", stream=True)))) as items:
        first = decode_events(await anext(items))[-1]
    assert isinstance(first, Delta)
    status = decode_status(await endpoint.status())
    assert 0 < first.engine_ns <= status.untold_ns == status.busy_ns
