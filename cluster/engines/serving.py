"""The methods every model replica offers over a Serve handle, whatever engine it hosts.

Arguments and results are msgpack bytes of `cluster.messages`, so a caller never imports an engine. Errors
travel as a last `Failure` event rather than as exceptions: Ray wraps exceptions differently on each of its
transports, and pickles their tracebacks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import cached_property
from time import perf_counter_ns
from typing import TypedDict, TypeVar, cast

import msgspec

from cluster.admission.queue import Capacity
from cluster.autoscaling.model import CALLS, ENDED, SECONDS
from cluster.engines import deadline
from cluster.engines.adapters import Adapters
from cluster.engines.batching import BatchEngine, Batcher
from cluster.engines.gate import Gate
from cluster.engines.sharing import SharedTime
from cluster.errors import ClusterError, InvalidCall
from cluster.interface import Batch, Engine, Watched
from cluster.messages import (
    AdmissionState,
    Delta,
    Embed,
    Embeddings,
    Event,
    Generate,
    Usage,
    decode_call,
    encode,
)
from cluster.routing.facts import Booking, ReplicaName, Work

T = TypeVar("T")

HERE = ReplicaName("")

MAX_BUFFERED_EVENTS = 512
"""Events that may wait for a slow reader before the engine's iterator is no longer drained."""

TELL_NS = 250_000_000
"""Of a stream: how often it is told its part of the engine's time, which is all that is known of one that is
cut off."""


class Told(TypedDict):
    """What replicas are told while they run."""

    weights: dict[str, float]
    """Of tenants that have another than 1: twice the weight is twice the tokens, where both wait."""
    adapters: dict[str, str]
    """Sources of adapters, by name."""


class EngineEndpoint:
    """Base of the replicas' deployment classes; they set `served`."""

    served: Engine
    adapters: Adapters | None = None
    """Of an engine that can take them."""
    capacity = Capacity(sequences=256)
    """Of the engine, and of the queue in front of it."""
    watch: Callable[[AdmissionState], None] | None = None
    """Is told now and then what the queue is like."""
    batches = False
    """Whether its calls are embedded in batches, by a `BatchEngine`."""

    @cached_property
    def _time(self) -> SharedTime:
        return SharedTime()

    @cached_property
    def _batcher(self) -> Batcher:
        return Batcher(cast("BatchEngine", self.served), self._time, waiting=self.capacity.waiting)

    @cached_property
    def _gate(self) -> Gate:
        return Gate(self.capacity, self.served if isinstance(self.served, Watched) else None)

    _untold_ns = 0
    _calls = _ended = _engine_ns = 0
    """Calls that came, those that the engine has ended, and how long it had them."""

    @cached_property
    def _work(self) -> Work:
        return Work()

    async def stream(self, payload: bytes, _beside: None = None) -> AsyncGenerator[bytes, None]:
        """Answer a `Generate`: items are msgpack lists of events, as many as came since the last item.

        `_beside` is what the caller's router has read (`cluster.routing.beside`).
        """
        try:
            call = decode_call(payload)
            if not isinstance(call, Generate):
                raise InvalidCall("a stream carries a Generate call", param="call")
            async with aclosing(coalesce(self._generate(call))) as items:
                async for events in items:
                    yield encode(events)
        except ClusterError as error:
            yield encode([error.as_failure()])

    async def call(self, payload: bytes, _beside: None = None) -> bytes:
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
        untold_ns = self._untold_ns + (self._batcher.untold_ns if self.batches else 0)
        told = {"busy_ns": busy_ns, "untold_ns": untold_ns, "admission": self._queue_state()}
        return encode(msgspec.structs.replace(status, **told))

    async def reconfigure(self, told: Told) -> None:
        """Called by Serve at the start and whenever it changes."""
        self._gate.weights = told["weights"]
        if self.batches:
            self._batcher.weights = told["weights"]
        if self.adapters is not None:
            await self.adapters.declare(told["adapters"])

    async def record_routing_stats(self) -> dict[str, int]:
        """Asked by Serve for those who route calls: the fields of `ReplicaFacts`."""
        work = self._work
        kept = self.capacity.kv_tokens or 0
        return {"waiting": round(work.waiting), "coming": round(work.coming), "kept": kept}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve where replicas come and go."""
        return {CALLS: self._calls, ENDED: self._ended, SECONDS: self._engine_ns / 1e9}

    async def check_health(self) -> None:
        """Asked by Serve every few seconds; raising has the replica replaced."""
        if self.watch is not None:
            self.watch(self._queue_state())
        await self.served.check_health()

    def _queue_state(self) -> AdmissionState:
        return self._batcher.state() if self.batches else self._gate.state()

    def _end(self, engine_ns: int) -> None:
        self._ended += 1
        self._engine_ns += engine_ns

    async def _generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """The engine's batches, once it is the call's turn."""
        self._calls += 1
        coming = (call.expected_tokens or call.max_tokens) * call.sampling.n
        booking = Booking(HERE, self._work, call.prompt_tokens, coming)
        try:
            async with aclosing(self._gate.through(call, self._timed)) as batches:
                async for batch in batches:
                    booking.answering()
                    yield batch
        finally:
            booking.end()

    async def _timed(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """The engine's batches, which tell the call's part of its time."""
        began = perf_counter_ns()
        beginning, told, open_ = self._time.begin(began), 0, True
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
            self._end(perf_counter_ns() - began)
            if open_:
                self._untold_ns += self._time.end(beginning, perf_counter_ns())

    async def _embed(self, call: Embed) -> Embeddings:
        self._calls += 1
        if self.batches:
            made = await self._batcher.embed(call)
            self._end(made.usage.engine_ns)  # its part of batches: they are computed one after the other
            return made
        beginning, told = self._time.begin(perf_counter_ns()), False
        try:
            made = await deadline.embed(self.served, call)
            told = True
        finally:
            share = self._time.end(beginning, perf_counter_ns())
            self._end(share)
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
