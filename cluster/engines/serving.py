"""The methods every model replica offers over a Serve handle, whatever engine it hosts.

Arguments and results are msgpack bytes of `cluster.messages`, so a caller never imports an engine. Errors
travel as a last `Failure` event rather than as exceptions: Ray wraps exceptions differently on each of its
transports, and pickles their tracebacks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from cluster.errors import ClusterError, DeadlineExceeded, EngineFailed, InvalidCall
from cluster.interface import Batch, Engine
from cluster.messages import Embed, Event, Failure, Generate, decode_call, encode

MAX_BUFFERED_EVENTS = 512
"""Events that may wait for a slow reader before the engine's iterator is no longer drained."""

log = structlog.get_logger(__name__)


class EngineEndpoint:
    """Base of the replicas' deployment classes; they set `served`."""

    served: Engine

    async def stream(self, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Answer a `Generate`: items are msgpack lists of events, as many as came since the last item."""
        try:
            call = decode_call(payload)
            if not isinstance(call, Generate):
                raise InvalidCall("a stream carries a Generate call", param="call")
            async with aclosing(coalesce(self._bounded(call))) as items:
                async for events in items:
                    yield encode(events)
        except ClusterError as error:
            yield encode([error.as_failure()])

    async def call(self, payload: bytes) -> bytes:
        """Answer a whole `Generate` with one list of events, or an `Embed` with `Embeddings`."""
        call = decode_call(payload)
        try:
            if isinstance(call, Embed):
                async with asyncio.timeout(_left(call.deadline)):
                    return encode(await self.served.embed(call))
            events: list[Event] = []
            async with aclosing(self._bounded(call)) as batches:
                async for batch in batches:
                    events += batch
            return encode(events)
        except TimeoutError:
            failure: Failure = DeadlineExceeded("the call's deadline passed").as_failure()
        except ClusterError as error:
            failure = error.as_failure()
        return encode(failure) if isinstance(call, Embed) else encode([failure])

    async def status(self) -> bytes:
        """The replica's `EngineStatus`. Answering at all means that it is warm."""
        return encode(await self.served.status())

    async def check_health(self) -> None:
        """Asked by Serve; raising has the replica replaced."""
        await self.served.check_health()

    async def _bounded(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """The engine's batches until the deadline. Closing the engine's iterator aborts the call there."""
        async with aclosing(self.served.generate(call)) as batches:
            while True:
                try:
                    async with asyncio.timeout(_left(call.deadline)):
                        batch = await anext(batches, None)
                except TimeoutError:
                    raise DeadlineExceeded("the call's deadline passed") from None
                except ClusterError:
                    raise
                except Exception as error:
                    log.exception("engine_failed", request_id=call.request_id, model=call.model)
                    raise EngineFailed(
                        f"the engine of {call.model} failed: {type(error).__name__}"
                    ) from error
                if batch is None:
                    return
                yield batch


async def coalesce(batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[list[Event], None]:
    """Batches merged while the reader is busy, so that a slow transport carries several tokens an item.

    Adds no wait: a reader that keeps up gets every batch as it comes. Errors arrive after the events before
    them. Closing this closes `batches`.
    """
    pending: deque[Batch] = deque()
    wake, room = asyncio.Event(), asyncio.Event()
    room.set()
    waiting = 0

    async def pump() -> None:
        nonlocal waiting
        try:
            async with aclosing(batches):
                async for batch in batches:
                    pending.append(batch)
                    waiting += len(batch)
                    wake.set()
                    if waiting >= MAX_BUFFERED_EVENTS:
                        room.clear()
                        await room.wait()
        finally:
            wake.set()

    task = asyncio.create_task(pump())
    try:
        while True:
            await wake.wait()
            wake.clear()
            events: list[Event] = []
            while pending:
                events += pending.popleft()
            waiting = 0
            room.set()
            if events:
                yield events
            if task.done() and not pending:
                await task
                return
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.time())
