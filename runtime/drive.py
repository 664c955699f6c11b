"""One attempt at one run, from its first event to its last.

    nodes ──event──► queue ──► journal ──► witness, reader      a run that is kept step by step, or followed
    nodes ──event──► witness, queue ──► reader                  any other; with `exit` the journal at the end

Whoever reads the batches drives the run: nobody sees an event that is not kept, and a reader who is slow, as
a store that is slow, holds the run back. A run that is given up (its lease is lost, its process goes down,
all that is left of it waits for people) ends without a last event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from cluster.errors import ClusterError, DeadlineExceeded, ModelUnavailable
from cluster.messages import Usage
from graphs.bindings import CONTEXT, INPUTS, Ref
from graphs.pipeline import Priority
from runtime.durability.journal import Journal
from runtime.durability.model import Checkpoint
from runtime.errors import LeaseLost, RunCancelled, RunError
from runtime.events import (
    NodeDelta,
    RunEvent,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
)
from runtime.executor.loop import execute
from runtime.executor.prepare import PreparedBody
from runtime.executor.progress import OF_RUN, Progress, of_run
from runtime.executor.queue import EventQueue, Watch
from runtime.executor.run import NodeBroke, Run, RunScope
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest
from runtime.store.errors import StoreError

logger = logging.getLogger(__name__)

MAX_NAMED = 20
"""Nodes that a message names."""
SUSPENDED_FOR_S = 7 * 24 * 3600.0
"""How long a question to a person stands that a suspended run waits for."""
PATIENCE_S = 1.0
"""How long a run that can be suspended waits for a decision before it is."""
STORE_RETRY_S = 1.0
PRIORITIES: Mapping[Priority, int] = {"high": -10_000, "normal": 0, "low": 10_000}
"""Of a graph's policy, in the engines' scale; further apart than any slack within a run."""

LAST = RunFinished | RunFailed | RunSuspended
"""After one of these an attempt tells nothing more."""


def unwatched(_event: RunEvent) -> None:
    """For runs that nobody watches."""


class Prepared(NamedTuple):
    """A plan, ready to run."""

    plan: ExecutionPlan
    body: PreparedBody
    inputs: Mapping[str, Any]
    """JSON Schema of the object of inputs."""


class Past(NamedTuple):
    """What is known of the run as a whole from earlier attempts."""

    started: float
    """Unix seconds."""
    usage: Usage = Usage()
    left: float | None = None
    """Seconds that it had left when it was suspended."""
    deaths: int = 0
    """Runners that died at it one after the other without getting further."""
    done: int = 0
    """How much was done when the last of them took it up."""


def past_of(done: Mapping[str, Checkpoint]) -> Past:
    """What the checkpoints of a run say of it as a whole."""
    kept = done.get(OF_RUN)
    if kept is None:
        return Past(time.time())
    return Past(usage=kept.usage or Usage(), **kept.outputs)


class Drive:
    """Drives one attempt."""

    def __init__(
        self,
        request: RunRequest,
        prepared: Prepared,
        inputs: Mapping[str, Any],
        *,
        past: Past,
        journal: Journal | None = None,
        watch: Watch = unwatched,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """
        Args:
            inputs: with their defaults.
            journal: where the run has one. `past` is what it says of earlier attempts.
            patience_s: how long a run that can be suspended waits for people before it is.
        """
        self.request = request
        self.journal = journal
        self.suspended: list[str] = []
        """Paths of the nodes that it was suspended for."""
        self.over = asyncio.Event()
        """Set when nothing is done for it any more, and its lease is given back."""
        self.told = False
        """Whether its last event is kept: its lease is nobody's then."""
        self._prepared, self._inputs, self._past = prepared, inputs, past
        self._patience_s = patience_s
        kept = journal is not None
        self._step = kept and request.durability == "step"
        self._live = kept and (self._step or request.background)
        """Whether events are kept before they are told, and not at the end."""
        self._suspends = self._step and request.background
        self._watch = watch
        self._queue = EventQueue(watch=unwatched if self._live else watch)
        done = (
            {} if journal is None else {path: each for path, each in journal.done.items() if path != OF_RUN}
        )
        keeps = kept and request.durability != "none"
        self._progress = Progress(done, keeps=keeps, commits=self._step, wake=self._queue.wake)
        self.run = Run(self._scope(), self._queue, self._progress, past.usage)
        self._began = perf_counter()
        self._limit: asyncio.Timeout | None = None
        self._cancelled = self._lost = self._executed = False
        self._driver: asyncio.Task[None] | None = None
        self._first: RunEvent
        self._unkept: list[RunEvent] = []
        """Of a run that is kept at its end."""

    @property
    def graph(self) -> str:
        """Of its plan."""
        return self._prepared.plan.graph

    async def begin(self) -> None:
        """Has the first event kept, where others can follow. Raises `ClusterError`, `StoreError`."""
        request, plan, journal = self.request, self._prepared.plan, self.journal
        first: RunEvent = RunStarted(request.run_id, plan.graph, plan.version, plan.hash)
        if journal is not None and journal.attempt > 1:
            first = RunResumed(request.run_id, journal.attempt, self._progress.completed)
        if self._live:
            await self._append([first], [self._of_run()])
        else:
            self._unkept.append(first)
        self._watch(first)
        self._first = first

    def cancel(self) -> bool:
        """Ends the run with a `RunFailed` of `RunCancelled`. Whether it was there to be ended."""
        if self._cancelled or self._executed or (self._limit is not None and self._limit.expired()):
            return False
        self._cancelled = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
        return True

    def leave(self, *, lost: bool = False) -> None:
        """Gives the run up, for another process to go on with. With its lease `lost`, nothing is written."""
        self._lost = self._lost or lost
        self.run.leaving = True
        self._queue.wake()
        if self._driver is not None:
            self._driver.cancel()

    async def batches(self) -> AsyncGenerator[list[RunEvent], None]:
        """The events, once it has begun. Closing it ends the run, and every call that it has in an engine."""
        driver = self._driver = asyncio.create_task(self._drive())
        ended = False
        try:
            yield [self._first]
            while not ended and not self.run.leaving:
                events = await self._next()
                if not events and self._suspends and self.run.waits_for_people:
                    events = [await self._suspended(driver)]
                events = await self._keep(events, driver)
                ended = bool(events) and isinstance(events[-1], LAST)
                if events:
                    yield events
        except LeaseLost:
            self.leave(lost=True)
        finally:
            await self._end(driver, ended=ended)

    async def _drive(self) -> None:
        """Runs the nodes and puts the last event, whatever happens; none where it is cancelled."""
        given = {Ref(INPUTS, name): value for name, value in self._inputs.items()}
        given[Ref(CONTEXT, "sessionHistory")] = self.request.history
        left = 0.0 if self._cancelled else self.run.scope.deadline - time.time()
        try:
            async with asyncio.timeout(left) as self._limit:
                outputs = await execute(self._prepared.body, self.run, given)
            shown, usage = msgspec.to_builtins(outputs), self.run.usage
            last: RunEvent = RunFinished(shown, usage, self._seconds(), self.run.besides)
        except NodeBroke as broke:
            last = self.failed(broke.error, broke.node)
        except TimeoutError:
            last = self.failed(self._ended_early(), next(iter(self.run.at_work()), None))
        except Exception:
            logger.exception("run %s of %s broke", self.request.run_id, self.request.graph)
            ours = RunError("the run broke for a reason of our own")
            last = self.failed(ours, next(iter(self.run.at_work()), None))
        finally:
            self._executed = True
        self._queue.put(last)

    def failed(self, error: ClusterError, node: str | None = None) -> RunFailed:
        return RunFailed(error.as_failure(), self.run.usage, self._seconds(), node, self.run.besides)

    async def _next(self) -> list[RunEvent]:
        """What has happened; nothing, where it is time to look at something else."""
        if not (self._suspends and self.run.waits_for_people):
            return await self._queue.take()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                return await self._queue.take()
        return []

    async def _suspended(self, driver: asyncio.Task[None]) -> RunSuspended:
        """Ends all that waits, without taking back what people are asked."""
        self.suspended = sorted(self.run.waiting)
        self.run.leaving = True
        await _cancelled(driver)
        return RunSuspended(self.suspended, self.run.usage, self._seconds(), self.run.besides)

    async def _keep(self, events: list[RunEvent], driver: asyncio.Task[None]) -> list[RunEvent]:
        """Has the events kept, and with them what was done; what is to be told, which is that, or that it
        could not be."""
        ended = bool(events) and isinstance(events[-1], LAST)
        if self.journal is None:
            return events
        if not self._live and not ended:
            self._unkept += [event for event in events if not isinstance(event, NodeDelta)]
            return events
        mark: int | None = None
        checkpoints: list[Checkpoint] = []
        if self._step or ended:
            checkpoints, mark = self._progress.take()
        if checkpoints or ended:
            checkpoints.append(self._of_run())
        if not events and not checkpoints:
            return []
        try:
            await self._append([*self._unkept, *events], checkpoints)
        except LeaseLost:
            raise
        except (ClusterError, StoreError) as error:
            events = [await self._unkeepable(error, driver)]
        self.told = ended
        if mark is not None:
            self._progress.kept(mark)
        if self._live:
            for event in events:
                self._watch(event)
        return events

    async def _unkeepable(self, error: ClusterError | StoreError, driver: asyncio.Task[None]) -> RunFailed:
        """Ends a run that cannot be kept any more."""
        await _cancelled(driver)
        failed = self.failed(as_cluster_error(error))
        with suppress(ClusterError, StoreError):
            await self._append([failed], [])
        return failed

    async def _end(self, driver: asyncio.Task[None], *, ended: bool) -> None:
        """Ends whatever still runs, and has the rest kept of a run whose reader left, or that is given up."""
        try:
            await _cancelled(driver)
            if driver.cancelled() and not ended and not self.run.leaving:
                self._queue.put(self.failed(RunCancelled("whoever read the run has left")))
            if self.journal is not None and not ended and not self._lost:
                self._queue.wake()
                with suppress(LeaseLost):
                    await self._keep(await self._queue.take(), driver)
        finally:
            if self.journal is not None and not self._lost:
                await self.journal.close()
            self.over.set()

    async def _append(self, events: list[RunEvent], checkpoints: list[Checkpoint]) -> None:
        assert self.journal is not None
        await self.journal.append(events, checkpoints)

    def _of_run(self) -> Checkpoint:
        past = self._past
        left = max(0.0, self.request.deadline - time.time()) if self.suspended else None
        return of_run(
            self.run.done_usage, started=past.started, left=left, deaths=past.deaths, done=past.done
        )

    def _seconds(self) -> float:
        """Since the run began, whichever process began it."""
        if self.journal is None or self.journal.attempt == 1:
            return perf_counter() - self._began
        return max(0.0, time.time() - self._past.started)

    def _scope(self) -> RunScope:
        request, plan = self.request, self._prepared.plan
        attempt = 1 if self.journal is None else self.journal.attempt
        return RunScope(
            request.run_id,
            request.deadline,
            request.tenant,
            request.priority + PRIORITIES[plan.policies.priority],
            request.stream,
            plan.graph,
            attempt=attempt,
            questions_until=time.time() + SUSPENDED_FOR_S if self._suspends else None,
            token_budget=request.token_budget,
            warms=attempt == 1 and (request.token_budget or plan.token_bound) >= plan.token_bound,
        )

    def _ended_early(self) -> ClusterError:
        paths = self.run.at_work()
        more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
        running = (", ".join(paths[:MAX_NAMED]) or "nothing") + more
        if self._cancelled:
            return RunCancelled(f"the run was cancelled; running: {running}")
        return DeadlineExceeded(f"the run passed its deadline; running: {running}")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def as_cluster_error(error: ClusterError | StoreError) -> ClusterError:
    """What a run says of an error that ends it."""
    if isinstance(error, ClusterError):
        return error
    return ModelUnavailable("the store in which runs are kept is out", retry_after_s=STORE_RETRY_S)
