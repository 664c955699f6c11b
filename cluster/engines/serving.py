"""The methods every model replica offers over a Serve handle, whatever engine it hosts.

Arguments and results are msgpack bytes of `cluster.messages`, so a caller never imports an engine. Errors
travel as a last `Failure` event rather than as exceptions: Ray wraps exceptions differently on each of its
transports, and pickles their tracebacks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property
from time import perf_counter_ns
from typing import TypeVar

import msgspec

from cluster.engines import deadline
from cluster.engines.sharing import SharedTime
from cluster.errors import ClusterError, InvalidCall
from cluster.interface import Batch, Engine
from cluster.messages import (
    Delta,
    Embed,
    Embeddings,
    Event,
    Generate,
    Usage,
    decode_call,
    encode,
)

T = TypeVar("T")

MAX_BUFFERED_EVENTS = 512
"""Events that may wait for a slow reader before the engine's iterator is no longer drained."""

TELL_NS = 250_000_000
"""Of a stream: how often it is told its part of the engine's time, which is all that is known of one that is
cut off."""


class EngineEndpoint:
    """Base of the replicas' deployment classes; they set `served`."""

    served: Engine

    @cached_property
    def _time(self) -> SharedTime:
        return SharedTime()

    _untold_ns = 0

    async def stream(self, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Answer a `Generate`: items are msgpack lists of events, as many as came since the last item."""
        try:
            call = decode_call(payload)
            if not isinstance(call, Generate):
                raise InvalidCall("a stream carries a Generate call", param="call")
            async with aclosing(coalesce(self._generate(call))) as items:
                async for events in items:
                    yield encode(events)
        except ClusterError as error:
            yield encode([error.as_failure()])

    async def call(self, payload: bytes) -> bytes:
        """Answer a whole `Generate` with one list of events, or an `Embed` with `Embeddings`."""
        call = decode_call(payload)
        try:
            if isinstance(call, Embed):
                return encode(await self._embed(call))
            events: list[Event] = []
            async with aclosing(self._generate(call)) as batches:
                async for batch in batches:
                    events += batch
            return encode(events)
        except ClusterError as error:
            failure = error.as_failure()
            return encode(failure) if isinstance(call, Embed) else encode([failure])

    async def status(self) -> bytes:
        """The replica's `EngineStatus`. Answering at all means that it is warm."""
        status = await self.served.status()
        busy_ns = self._time.busy(perf_counter_ns())
        return encode(msgspec.structs.replace(status, busy_ns=busy_ns, untold_ns=self._untold_ns))

    async def check_health(self) -> None:
        """Asked by Serve; raising has the replica replaced."""
        await self.served.check_health()

    async def _generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """The engine's batches, which tell the call's part of its time."""
        beginning, told, open_ = self._time.begin(perf_counter_ns()), 0, True
        try:
            async with aclosing(deadline.generate(self.served, call)) as batches:
                async for batch in batches:
                    last = batch[-1]
                    if isinstance(last, Usage):
                        share, open_ = self._time.end(beginning, perf_counter_ns()), False
                        batch[-1] = msgspec.structs.replace(last, engine_ns=share)
                    elif isinstance(last, Delta):
                        share = self._time.share(beginning, perf_counter_ns())
                        if share >= told + TELL_NS or not told:
                            told = share
                            batch[-1] = msgspec.structs.replace(last, engine_ns=share)
                    yield batch
        finally:
            if open_:
                self._untold_ns += self._time.end(beginning, perf_counter_ns())

    async def _embed(self, call: Embed) -> Embeddings:
        beginning, told = self._time.begin(perf_counter_ns()), False
        try:
            made = await deadline.embed(self.served, call)
            told = True
        finally:
            share = self._time.end(beginning, perf_counter_ns())
            self._untold_ns += 0 if told else share
        return Embeddings(made.vectors, msgspec.structs.replace(made.usage, engine_ns=share))


async def coalesce(batches: AsyncGenerator[list[T], None]) -> AsyncGenerator[list[T], None]:
    """Batches merged while the reader is busy, so that a slow transport carries several tokens an item.

    Adds no wait: a reader that keeps up gets every batch as it comes. Errors arrive after the events before
    them. Closing this closes `batches`.
    """
    pending: deque[list[T]] = deque()
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
            events: list[T] = []
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
