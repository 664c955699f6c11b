from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.engines.serving import EngineEndpoint
from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded, ReplicaLost
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Embeddings, Event, Failure, Finish, Usage, encode
from cluster.pools import handle
from cluster.pools.handle import ATTEMPTS, HandlePool
from tests.cluster.calls import batches_of, chat, embed, events_of, keep
from tests.cluster.pools.handles import Handle, handle_to

INFO = ModelInfo("m", "generate", 2048, 256)
REPLY: list[Event] = [Delta("Hi"), Finish("stop"), Usage(1, 1)]
VECTORS = Embeddings([[1.0]], Usage(1))
FULL = Failure("Overloaded", "full", retry_after_s=2.0)


def died() -> ActorDiedError:
    return ActorDiedError()


def unavailable() -> ActorUnavailableError:
    return ActorUnavailableError("connection reset", None)


Attempt = list[list[Event] | Exception]
"""What one attempt gives: items of a stream, or a single one for a whole answer."""


def pool_of(*attempts: Attempt, vectors: Any = None) -> tuple[HandlePool, Handle]:
    """A pool whose calls, in order, go as scripted."""
    left = iter(attempts)

    async def stream(_: bytes) -> AsyncGenerator[bytes, None]:
        for item in next(left):
            if isinstance(item, Exception):
                raise item
            yield encode(item)

    async def call(_: bytes) -> bytes:
        [item] = next(left)
        if isinstance(item, Exception):
            raise item
        return encode(item)

    async def status() -> bytes:
        return b""

    fake = Handle(stream=stream, call=call, status=status)
    return HandlePool(INFO, fake.as_handle(), FakeTokenCounter()), fake


def ask(pool: HandlePool, *, stream: bool) -> AsyncGenerator[Batch, None]:
    return pool.generate(chat(stream=stream))


async def test_a_stream_arrives_item_by_item() -> None:
    pool, _ = pool_of([[Delta("Hi")], REPLY[1:]])
    assert await batches_of(ask(pool, stream=True)) == [[Delta("Hi")], REPLY[1:]]


async def test_a_whole_answer_is_one_batch() -> None:
    pool, _ = pool_of([REPLY])
    assert await batches_of(ask(pool, stream=False)) == [REPLY]


async def test_vectors_arrive() -> None:
    pool, _ = pool_of([VECTORS])  # type: ignore[list-item]
    assert await pool.embed(embed("a")) == VECTORS


async def test_tokens_are_counted_here() -> None:
    pool, fake = pool_of()
    assert pool.count_tokens(chat("one two")) == 2
    assert fake.responses == []


@pytest.mark.parametrize("error", [died, unavailable])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_that_dies_before_it_answers_is_replaced(
    stream: bool, error: Callable[[], Exception]
) -> None:
    pool, fake = pool_of([error()], [error()], [REPLY])
    assert await events_of(ask(pool, stream=stream)) == REPLY
    assert len(fake.responses) == 3


async def test_embedding_is_tried_again_too() -> None:
    pool, fake = pool_of([died()], [VECTORS])  # type: ignore[list-item]
    assert await pool.embed(embed("a")) == VECTORS
    assert len(fake.responses) == 2


async def test_after_the_first_event_nothing_is_tried_again() -> None:
    pool, fake = pool_of([[Delta("Hi")], died()], [REPLY])
    seen: Batch = []
    with pytest.raises(ReplicaLost):
        await keep(ask(pool, stream=True), seen)
    assert seen == [Delta("Hi")]
    assert len(fake.responses) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_attempts_are_bounded(stream: bool) -> None:
    pool, fake = pool_of(*[[died()] for _ in range(9)])
    with pytest.raises(ReplicaLost):
        await events_of(ask(pool, stream=stream))
    with pytest.raises(ReplicaLost):
        await pool.embed(embed("a"))
    assert len(fake.responses) == 2 * ATTEMPTS


async def test_a_call_that_is_late_is_not_tried_again() -> None:
    pool, fake = pool_of([died()], [died()])
    late = time.time() - 1
    with pytest.raises(ReplicaLost):
        await events_of(pool.generate(chat(stream=True, deadline=late)))
    with pytest.raises(ReplicaLost):
        await pool.embed(embed("a", deadline=late))
    assert len(fake.responses) == 2


@pytest.mark.parametrize(
    ("raised", "kind", "retry"),
    [
        (BackPressureError(1, 1), Overloaded, True),
        (DeploymentUnavailableError(DeploymentID("model-m")), ModelUnavailable, True),
        (RequestCancelledError("r"), EngineFailed, False),
        (RayError("the prompt of another tenant"), EngineFailed, False),
    ],
)
async def test_what_ray_raises_is_put_in_our_terms_and_not_tried_again(
    raised: Exception, kind: type[ClusterError], retry: bool
) -> None:
    pool, fake = pool_of([raised], [raised], [raised])
    errors = []
    for work in (
        events_of(ask(pool, stream=True)),
        events_of(ask(pool, stream=False)),
        pool.embed(embed("a")),
    ):
        with pytest.raises(kind) as caught:
            await work
        errors.append(caught.value)
    for error in errors:
        assert (error.retry_after_s is not None) is retry
        assert "tenant" not in error.message
    assert len(fake.responses) == 3


@pytest.mark.parametrize("items", [[[Delta("Hi")], [FULL]], [[Delta("Hi"), FULL]]])
async def test_a_failure_is_raised_after_the_events_before_it(items: Attempt) -> None:
    pool, fake = pool_of(items)
    seen: Batch = []
    with pytest.raises(Overloaded, match="full") as caught:
        await keep(ask(pool, stream=True), seen)
    assert caught.value.retry_after_s == 2.0
    assert seen == [Delta("Hi")]
    assert len(fake.responses) == 1


async def test_a_failure_in_place_of_an_answer_is_raised() -> None:
    failure = Failure("InvalidCall", "no", param="n")
    pool, _ = pool_of([[failure]], [failure])  # type: ignore[list-item]
    with pytest.raises(InvalidCall) as caught:
        await events_of(ask(pool, stream=False))
    assert caught.value.param == "n"
    with pytest.raises(InvalidCall):
        await pool.embed(embed("a"))


def slow_pool() -> tuple[HandlePool, FakeEngine, Handle]:
    engine = FakeEngine(FakeScript(token_s=0.05, output_tokens=1000, first_token_s=0.005))
    endpoint = EngineEndpoint()
    endpoint.served = engine
    fake = handle_to(endpoint)
    return HandlePool(INFO, fake.as_handle(), FakeTokenCounter()), engine, fake


async def running(engine: FakeEngine, wanted: int) -> None:
    """Waits, a minute at most, until so many calls are in the engine."""
    async with asyncio.timeout(60):
        while (await engine.status()).running != wanted:
            await asyncio.sleep(0)


async def test_closing_a_stream_cancels_the_call_in_its_replica() -> None:
    pool, engine, fake = slow_pool()
    async with aclosing(pool.generate(chat(stream=True, max_tokens=1000))) as batches:
        await anext(batches)
        await running(engine, 1)
    assert fake.responses[0].cancelled
    await running(engine, 0)
    assert (await engine.status()).aborted == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_caller_cancels_the_call_in_its_replica(stream: bool) -> None:
    pool, engine, fake = slow_pool()
    task = asyncio.create_task(events_of(pool.generate(chat(stream=stream, max_tokens=1000))))
    await running(engine, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.responses[0].cancelled
    await running(engine, 0)


async def test_a_replica_that_answers_is_ready() -> None:
    pool, _ = pool_of()
    assert await pool.ready()


@pytest.mark.parametrize("error", [died(), BackPressureError(1, 1)])
async def test_a_replica_that_cannot_answer_is_not_ready(error: Exception) -> None:
    async def status() -> bytes:
        raise error

    fake = Handle(status=status, call=status, stream=status)
    assert not await HandlePool(INFO, fake.as_handle(), FakeTokenCounter()).ready()


async def test_asking_for_readiness_never_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "READY_WITHIN_S", 0.01)

    async def status() -> bytes:
        await asyncio.Event().wait()
        return b""

    fake = Handle(status=status, call=status, stream=status)
    assert not await HandlePool(INFO, fake.as_handle(), FakeTokenCounter()).ready()
    assert fake.responses[0].cancelled


async def test_a_pool_on_demand_is_ready_without_being_asked() -> None:
    _, fake = pool_of()
    assert await HandlePool(INFO, fake.as_handle(), FakeTokenCounter(), on_demand=True).ready()
    assert fake.responses == []
