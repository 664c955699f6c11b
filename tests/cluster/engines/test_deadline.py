from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from cluster.engines import deadline
from cluster.engines.fake import FakeEngine, FakeScript
from cluster.errors import ClusterError, DeadlineExceeded, EngineFailed, InvalidCall
from cluster.interface import Batch
from cluster.messages import Delta, Embed, Embeddings, Generate
from tests.cluster.calls import batches_of, chat, embed, events_of, keep

SECRET = "the prompt of another tenant"


class Broken(FakeEngine):
    """Raises what it is told to: after one batch, or at once."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        yield [Delta("one")]
        raise self.error

    async def embed(self, call: Embed) -> Embeddings:
        raise self.error


async def test_what_is_in_time_passes_unchanged() -> None:
    expected = await batches_of(FakeEngine().generate(chat(stream=True)))
    assert await batches_of(deadline.generate(FakeEngine(), chat(stream=True))) == expected
    assert await deadline.embed(FakeEngine(), embed("a")) == await FakeEngine().embed(embed("a"))


async def test_a_call_that_is_late_already_never_reaches_the_engine() -> None:
    engine, past = FakeEngine(), time.time() - 1
    with pytest.raises(DeadlineExceeded):
        await events_of(deadline.generate(engine, chat(deadline=past)))
    with pytest.raises(DeadlineExceeded):
        await deadline.embed(engine, embed("a", deadline=past))
    status = await engine.status()
    assert status.completed + status.aborted == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_aborts_the_call_in_the_engine(stream: bool) -> None:
    engine = FakeEngine(FakeScript(token_s=0.02, output_tokens=1000))
    call = chat(stream=stream, max_tokens=1000, deadline=time.time() + 1.0)
    with pytest.raises(DeadlineExceeded):
        await events_of(deadline.generate(engine, call))
    status = await engine.status()
    assert (status.running, status.aborted) == (0, 1)
    with pytest.raises(DeadlineExceeded):
        await deadline.embed(FakeEngine(FakeScript(first_token_s=9)), embed("a", deadline=time.time() + 0.02))


async def test_an_engine_that_answers_its_cancellation_with_an_error_was_late_all_the_same() -> None:
    class Swallowing(FakeEngine):
        async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise InvalidCall("Client disconnected") from None
            yield []

    call = chat(deadline=time.time() + 0.02)
    with pytest.raises(DeadlineExceeded):
        await batches_of(deadline.generate(Swallowing(), call))


async def test_a_surprise_is_the_engines_failure_and_keeps_its_text_to_itself() -> None:
    seen: Batch = []
    with pytest.raises(EngineFailed, match="ZeroDivisionError") as caught:
        await keep(deadline.generate(Broken(ZeroDivisionError(SECRET)), chat(stream=True)), seen)
    assert seen == [Delta("one")]
    assert SECRET not in caught.value.message
    with pytest.raises(EngineFailed) as caught:
        await deadline.embed(Broken(ValueError(SECRET)), embed("a"))
    assert SECRET not in caught.value.message


async def test_a_time_out_of_the_engines_own_is_not_the_deadline() -> None:
    with pytest.raises(EngineFailed, match="TimeoutError"):
        await events_of(deadline.generate(Broken(TimeoutError()), chat()))


@pytest.mark.parametrize("error", [InvalidCall("no", param="n"), ClusterError("odd")])
async def test_what_the_engine_raises_on_purpose_passes(error: ClusterError) -> None:
    with pytest.raises(ClusterError) as caught:
        await deadline.embed(Broken(error), embed("a"))
    assert caught.value is error


async def test_a_cancelled_caller_is_cancelled() -> None:
    engine = FakeEngine(FakeScript(first_token_s=9))
    task = asyncio.create_task(events_of(deadline.generate(engine, chat())))
    while not (await engine.status()).running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await engine.status()).aborted == 1
