from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from cluster.admission.queue import Capacity
from cluster.autoscaling.model import CALLS, ENDED, SECONDS
from cluster.engines import serving
from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.engines.serving import EngineEndpoint, coalesce
from cluster.errors import ClusterError, EngineFailed, InvalidCall
from cluster.interface import Batch
from cluster.messages import (
    AdmissionState,
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
    status = decode_status(await replica.status())
    assert status == EngineStatus(admission=AdmissionState(max_sequences=256, max_waiting=1024))
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


def narrow(**script: Any) -> Endpoint:
    """A replica with one place in its engine."""
    replica = Endpoint(FakeEngine(FakeScript(**script)))
    replica.capacity = Capacity(sequences=1, waiting=4)
    return replica


async def test_calls_wait_for_their_turn_and_owe_nothing_for_it() -> None:
    replica, other = narrow(output_tokens=2), chat(request_id="other")
    ticket = await replica._gate.enter(other)
    replying = asyncio.create_task(replica.call(encode(chat())))
    await asyncio.sleep(0.05)
    assert not replying.done()
    turn = time.perf_counter_ns()
    replica._gate.leave(ticket, other, done=True)
    usage = decode_events(await replying)[-1]
    assert 0 < usage.engine_ns < time.perf_counter_ns() - turn
    status = decode_status(await replica.status())
    assert status.busy_ns == usage.engine_ns
    assert status.admission is not None
    assert (status.admission.admitted, status.admission.waiting, status.admission.sequences) == (2, 0, 0)


async def test_a_tenant_that_floods_does_not_keep_another_waiting() -> None:
    replica = narrow(output_tokens=1, first_token_s=0.001)
    replica.capacity = Capacity(sequences=1, waiting=100)
    order: list[str] = []

    async def asked(tenant: str, number: int) -> None:
        await replica.call(encode(chat("a b", request_id=f"{tenant}{number}", tenant=tenant)))
        order.append(tenant)

    await asyncio.gather(*(asked("flood", n) for n in range(40)), *(asked("light", n) for n in range(3)))
    assert max(index for index, tenant in enumerate(order) if tenant == "light") < 10


async def test_what_does_not_fit_is_refused_with_a_time_to_come_back() -> None:
    replica = narrow(first_token_s=5.0)
    waiting = [asyncio.create_task(replica.call(encode(chat(request_id=str(n))))) for n in range(5)]
    await settle()
    [refused] = decode_events(await replica.call(encode(chat())))
    [streamed] = await stream_of(replica, chat(stream=True))
    for failure in (refused, streamed):
        assert isinstance(failure, Failure)
        assert failure.kind == "Overloaded"
        assert failure.retry_after_s
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    status = decode_status(await replica.status())
    assert status.admission is not None
    assert (status.running, status.admission.waiting, status.admission.sequences) == (0, 0, 0)


async def test_a_stream_that_is_closed_while_it_waits_leaves_the_queue() -> None:
    replica = narrow(first_token_s=5.0)
    inside = asyncio.create_task(replica.call(encode(chat(request_id="inside"))))
    await settle()
    items = replica.stream(encode(chat(stream=True)))
    reader = asyncio.create_task(anext(items))
    await settle()
    assert replica._gate.state().waiting == 1
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert replica._gate.state().waiting == 0
    inside.cancel()
    await asyncio.gather(inside, return_exceptions=True)


async def test_weights_that_change_count_from_then_on() -> None:
    replica = narrow(output_tokens=1, first_token_s=0.001)
    replica.capacity = Capacity(sequences=1, waiting=100)
    await replica.reconfigure({"weights": {"heavy": 3.0}, "adapters": {}})
    order: list[str] = []

    async def asked(tenant: str, number: int) -> None:
        await replica.call(encode(chat("a b c d", request_id=f"{tenant}{number}", tenant=tenant)))
        order.append(tenant)

    await asyncio.gather(*(asked(tenant, n) for n in range(30) for tenant in ("light", "heavy")))
    assert 2 <= order[:24].count("heavy") / order[:24].count("light") <= 4


async def test_health_checks_tell_what_the_queue_is_like() -> None:
    replica, told = narrow(first_token_s=5.0), list[AdmissionState]()
    replica.watch = told.append
    tasks = [asyncio.create_task(replica.call(encode(chat(request_id=str(n))))) for n in range(3)]
    await settle()
    await replica.check_health()
    assert [(state.sequences, state.waiting) for state in told] == [(1, 2)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_embeddings_of_many_callers_share_batches_and_the_engines_time() -> None:
    class Counting(FakeEngine):
        batches = 0

        async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
            self.batches += 1
            return await super().embed_many(calls)

    engine = Counting(FakeScript(first_token_s=0.02))
    replica = Endpoint(engine)
    replica.batches = True
    await replica.reconfigure({"weights": {"a": 2.0}, "adapters": {}})
    replies = await asyncio.gather(*(replica.call(encode(embed(str(n), tenant="a"))) for n in range(20)))
    made = [decode_embeddings(reply) for reply in replies]
    status = decode_status(await replica.status())
    assert status.admission is not None
    assert status.admission.admitted == 20
    shares = [each.usage.engine_ns for each in made if isinstance(each, Embeddings)]
    assert 0 <= status.busy_ns - sum(shares) - status.untold_ns < 1000
    assert engine.batches < 10


async def test_those_who_route_are_told_what_waits_and_what_is_to_come() -> None:
    endpoint = EngineEndpoint()
    endpoint.served = FakeEngine(FakeScript(output_tokens=3, first_token_s=0.1))
    endpoint.capacity = Capacity(sequences=4, kv_tokens=1_000)
    call = msgspec.structs.replace(chat(stream=True), prompt_tokens=70, expected_tokens=30)
    assert await endpoint.record_routing_stats() == {"waiting": 0, "coming": 0, "kept": 1_000}
    async with aclosing(endpoint._generate(call)) as batches:
        reading = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        assert await endpoint.record_routing_stats() == {"waiting": 70, "coming": 30, "kept": 1_000}
        await reading
        assert await endpoint.record_routing_stats() == {"waiting": 0, "coming": 30, "kept": 1_000}
    assert await endpoint.record_routing_stats() == {"waiting": 0, "coming": 0, "kept": 1_000}


async def test_calls_and_the_time_of_the_engine_are_counted() -> None:
    endpoint = EngineEndpoint()
    endpoint.served = FakeEngine(FakeScript(output_tokens=2, token_s=0.01))
    assert await endpoint.record_autoscaling_stats() == {CALLS: 0, ENDED: 0, SECONDS: 0.0}
    await endpoint.call(encode(chat()))
    await endpoint.call(encode(embed()))
    counted = await endpoint.record_autoscaling_stats()
    assert (counted[CALLS], counted[ENDED]) == (2, 2)
    assert counted[SECONDS] >= 0.01
