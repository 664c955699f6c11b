"""The door of the runtime: what a gateway asks of a runner, and what it may know of a graph beforehand."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from hashlib import blake2b
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import msgspec

from cluster.errors import ClusterError, InvalidCall, ReplicaLost
from cluster.messages import Usage
from graphs.errors import GraphError
from graphs.ports import object_schema
from graphs.versions import AT, by_reference, found_in
from runtime.drive import (
    PATIENCE_S,
    Drive,
    Past,
    Prepared,
    as_cluster_error,
    past_of,
    unwatched,
)
from runtime.durability.journal import Journal, Journals, Taken
from runtime.durability.model import Checkpoint, Lease
from runtime.errors import UnknownGraph
from runtime.events import RunEvent, RunFailed
from runtime.executor.kinds.kind import Resources
from runtime.executor.prepare import prepare
from runtime.executor.queue import Watch
from runtime.info import (
    MAX_NAME_CHARS,
    MAX_PROBLEM_CHARS,
    ChatBinding,
    GraphInfo,
    decode_infos,
    info_of,
    validate_inputs,
)
from runtime.plan import ExecutionPlan, decode_plan, encode_plan
from runtime.request import RunRequest
from runtime.store.errors import StoreError
from runtime.tally import Tally

__all__ = [
    "ChatBinding",
    "Earlier",
    "GraphInfo",
    "Runner",
    "Witness",
    "decode_infos",
    "info_of",
    "validate_inputs",
]

MAX_PLAN_BYTES = 2 * 2**20
"""Of the plan of a graph that is not deployed, packed."""
MAX_OTHER_PLANS = 32
"""Plans of graphs that are not deployed, or not any more, which are kept ready."""
MAX_DEATHS = 3
"""Runners that may die at a run, one after the other, without its getting further: then it is ended."""
HAND_OVER_S = 10.0


class Earlier(NamedTuple):
    """What had become of a run before this process went on with it."""

    started: float
    """Unix seconds."""
    attempt: int
    """Of this process: 2 for the first that is not the first."""
    events: Sequence[RunEvent]


class Witness(Protocol):
    """Sees runs from within, whether or not anybody reads them: every event when it happens; of a run that
    others can follow, when it is kept."""

    def watch(self, request: RunRequest, earlier: Earlier | None = None) -> Watch:
        """What is told the events of a run that begins, or goes on."""
        ...


class Runner:
    """Runs compiled plans. Needs an event loop and nothing else: no Ray, no server.

    With journals it runs durable runs too, and goes on with those of runners that died; `attend` must run
    for as long (`runtime.durability.attending`).

    Raises `KeyError`, when it is made, for a plan whose models or indexes are not all there.
    """

    def __init__(
        self,
        plans: Iterable[ExecutionPlan],
        resources: Resources,
        witness: Witness | None = None,
        journals: Journals | None = None,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`patience_s`: how long a run waits for people in this process before it is suspended."""
        self._plans = by_reference({(plan.graph, plan.version): _prepared(plan, resources) for plan in plans})
        self.infos = {name: info_of(prepared.plan) for name, prepared in self._plans.items()}
        """By the name of the graph, and where it has several versions by NAME@VERSION."""
        self._resources = resources
        self._witness = witness
        self._journals = journals
        self._patience_s = patience_s
        self._others: OrderedDict[bytes, Prepared] = OrderedDict()
        """Plans that are not deployed, by digest, the one used last at the end."""
        self._drives: dict[tuple[str, str], Drive] = {}
        """By tenant and run id."""
        self._tasks: set[asyncio.Task[None]] = set()
        """That drive runs in the background."""
        self._tally = Tally(prepared.plan.graph for prepared in self._plans.values())

    @property
    def running(self) -> list[tuple[str, str]]:
        """Tenant and id of every run that goes on here."""
        return list(self._drives)

    @property
    def leases(self) -> list[Lease]:
        """Of every run that goes on here and has one."""
        drives = [drive for drive in self._drives.values() if not drive.told]
        return [drive.journal.lease for drive in drives if drive.journal is not None]

    def counts(self) -> dict[str, float]:
        """What those who decide on replicas are told: `cluster.autoscaling.model`."""
        return self._tally.counts()

    def cancel(self, tenant: str, run_id: str) -> bool:
        """Ends a run of the tenant with a `RunFailed` whose failure is `RunCancelled`, and aborts its calls.

        Whether it was there to be ended.
        """
        drive = self._drives.get((tenant, run_id))
        return drive is not None and drive.cancel()

    def lose(self, lease: Lease) -> None:
        """Gives up the run of a lease that another runner has: nothing more is told or kept of it."""
        drive = self._drives.get((lease.tenant, lease.run_id))
        if drive is not None and drive.journal is not None and drive.journal.lease == lease:
            drive.leave(lost=True)

    async def hand_over(self) -> None:
        """Gives up every run that others can go on with, and its lease; returns when that is done."""
        leaving = [drive for drive in self._drives.values() if drive.journal is not None]
        for drive in leaving:
            drive.leave()
        with suppress(TimeoutError):  # of one whose reader does not read, the lease runs out
            async with asyncio.timeout(HAND_OVER_S):
                await asyncio.gather(*(drive.over.wait() for drive in leaving))

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        """The events of the run, exactly one `RunFinished` or `RunFailed` at the end. Never raises for a
        run that fails.

        Closing it cancels every node that runs, and aborts their calls in the engines; not of a run in the
        background, which may also end at a `RunSuspended`. A durable run that another runner takes over
        stops without a last event: its journal tells the rest.
        """
        began = perf_counter()
        try:
            if request.background:
                await self.start(request)
            else:
                drive = await self._begin(request, ())
        except ClusterError as error:
            yield RunFailed(error.as_failure(), Usage(), perf_counter() - began)
            return
        events = self._followed(request) if request.background else self._driven(drive)
        async with aclosing(events):
            async for event in events:
                yield event

    async def start(self, request: RunRequest, done: Sequence[Checkpoint] = ()) -> None:
        """Begins a run in the background; returns when its inputs are accepted and it is in the journal.

        `done` is what it need not do itself: a fork has it from another run. Raises `ClusterError`:
        `InvalidInputs`, `UnknownGraph`, `InvalidCall`, `RunExists`, and `ModelUnavailable` while the store of
        the journals is out.
        """
        request = msgspec.structs.replace(request, background=True)
        self._in_background(await self._begin(request, done))

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        """Goes on, in the background, with a run that is suspended, that has failed, or that nobody drives.

        Args:
            deadline: Unix seconds. Without one a suspended run has what was left of its time, and one that
                nobody drives what it had; one that has failed needs one.

        Raises `UnknownRun`, `RunHeld` where somebody drives it, `RunEnded`, and `ModelUnavailable` while the
        store of the journals is out.
        """
        journals = self._kept_in()
        try:
            if deadline is None:
                kept = await journals.read(tenant, run_id)
                if kept.state == "suspended":
                    deadline = time.time() + (past_of(kept.done).left or 0.0)
            await self._go_on(await journals.take(tenant, run_id, deadline=deadline), abandoned=False)
        except StoreError as error:
            raise as_cluster_error(error) from error

    async def take_up(self, tenant: str, run_id: str) -> None:
        """Goes on, in the background, with a run whose runner died. Raises as `resume`."""
        try:
            await self._go_on(await self._kept_in().take(tenant, run_id), abandoned=True)
        except StoreError as error:
            raise as_cluster_error(error) from error

    async def _begin(self, request: RunRequest, done: Sequence[Checkpoint]) -> Drive:
        """A new run, its inputs accepted and its first event kept. Raises `ClusterError`."""
        prepared = self._find(request)
        inputs = validate_inputs(prepared.inputs, request.inputs)
        request = _bounded(request, prepared.plan)
        watch = unwatched if self._witness is None else self._witness.watch(request)
        if request.durability == "none" and not request.background:
            drive = Drive(request, prepared, inputs, past=Past(time.time()), watch=watch)
            await drive.begin()
            return drive
        try:
            journal = await self._kept_in().begin(request, prepared.plan, done)
            drive = self._drive(request, prepared, inputs, Past(time.time()), journal, watch)
            await _begun(drive, journal)
        except StoreError as error:
            raise as_cluster_error(error) from error
        return drive

    async def _go_on(self, taken: Taken, *, abandoned: bool) -> None:
        """Drives a run that was taken, in the background; or ends it, where that cannot be."""
        request, journal = taken.request, taken.journal
        past = past_of(journal.done)
        if abandoned:
            further = len(journal.done) > past.done
            past = past._replace(deaths=1 if further else past.deaths + 1, done=len(journal.done))
        watch = await self._watch_on(request, journal, past)
        try:
            _check_goes_on(request, past, abandoned=abandoned)
            prepared = self._prepared(taken.plan)
            inputs = validate_inputs(prepared.inputs, request.inputs)
        except ClusterError as error:
            failed = RunFailed(error.as_failure(), past.usage, max(0.0, time.time() - past.started))
            try:
                await journal.append([failed], [])
                watch(failed)
            finally:
                await journal.close()
            return
        drive = self._drive(request, prepared, inputs, past, journal, watch)
        await _begun(drive, journal)
        self._in_background(drive)

    def _drive(
        self,
        request: RunRequest,
        prepared: Prepared,
        inputs: Mapping[str, Any],
        past: Past,
        journal: Journal,
        watch: Watch,
    ) -> Drive:
        return Drive(
            request,
            prepared,
            inputs,
            past=past,
            journal=journal,
            watch=watch,
            patience_s=self._patience_s,
        )

    async def _watch_on(self, request: RunRequest, journal: Journal, past: Past) -> Watch:
        """What is told of a run that goes on, with what it has been told so far."""
        if self._witness is None:
            return unwatched
        events: list[RunEvent] = []
        if journal.number:
            kept = self._kept_in().follow(request.tenant, request.run_id, wait=False)
            async with aclosing(kept) as batches:
                events = [event async for batch in batches for _, event in batch]
        return self._witness.watch(request, Earlier(past.started, journal.attempt, events))

    def _in_background(self, drive: Drive) -> None:
        self._drives[drive.request.tenant, drive.request.run_id] = drive
        task = asyncio.create_task(self._drive_alone(drive))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive_alone(self, drive: Drive) -> None:
        async with aclosing(self._driven(drive)) as events:
            async for _ in events:
                pass

    async def _driven(self, drive: Drive) -> AsyncGenerator[RunEvent, None]:
        key = (drive.request.tenant, drive.request.run_id)
        self._drives[key] = drive
        self._tally.begin(drive.graph)
        began = perf_counter()
        try:
            async with aclosing(drive.batches()) as batches:
                async for batch in batches:
                    for event in batch:
                        yield event
        finally:
            self._tally.end(drive.graph, perf_counter() - began)
            if self._drives.get(key) is drive:
                del self._drives[key]

    async def _followed(self, request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        async for batch in self._kept_in().follow(request.tenant, request.run_id):
            for _, event in batch:
                yield event

    def _kept_in(self) -> Journals:
        if self._journals is None:
            raise InvalidCall(
                "this runner keeps no journals: a run in it has durability none and is not in the background",
                param="durability",
            )
        return self._journals

    def _find(self, request: RunRequest) -> Prepared:
        if request.plan is not None:
            if len(request.plan) > MAX_PLAN_BYTES:
                raise InvalidCall(f"the plan has more than {MAX_PLAN_BYTES} bytes", param="plan")
            try:
                return self._prepared(decode_plan(request.plan))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InvalidCall(f"the plan cannot be read: {error}", param="plan") from error
        prepared = found_in(self._plans, request.graph, _version_of)
        if prepared is None:
            raise UnknownGraph(f"there is no graph {request.graph[:MAX_NAME_CHARS]}", param="graph")
        return prepared

    def _prepared(self, plan: ExecutionPlan) -> Prepared:
        """The plan, ready to run: of those deployed, of those used lately, or made so.

        Raises `InvalidCall` for one that names what is not here.
        """
        deployed = found_in(self._plans, f"{plan.graph}{AT}{plan.version}", _version_of)
        if deployed is not None and deployed.plan == plan:
            return deployed
        digest = blake2b(encode_plan(plan)).digest()  # its own hash knows nothing of the names of nodes
        prepared = self._others.get(digest)
        if prepared is None:
            # Its functions run in threads: processes of their own would outlive it.
            resources = msgspec.structs.replace(self._resources, open_chain=None)
            try:
                prepared = self._others[digest] = _prepared(plan, resources)
            except (KeyError, GraphError) as error:
                message = f"the plan of {plan.graph} names what this runner does not have: {error}"
                raise InvalidCall(message[:MAX_PROBLEM_CHARS], param="plan") from error
        self._others.move_to_end(digest)
        while len(self._others) > MAX_OTHER_PLANS:
            self._others.popitem(last=False)
        return prepared


def _version_of(prepared: Prepared) -> str:
    return prepared.plan.version


def _prepared(plan: ExecutionPlan, resources: Resources) -> Prepared:
    return Prepared(plan, prepare(plan, resources), object_schema(plan.inputs))


async def _begun(drive: Drive, journal: Journal) -> None:
    """Begins it, or gives its lease back."""
    try:
        await drive.begin()
    except BaseException:
        await journal.close()
        raise


def _check_goes_on(request: RunRequest, past: Past, *, abandoned: bool) -> None:
    """Raises the `ClusterError` in which a run ends that cannot go on."""
    if request.durability == "none" or (abandoned and request.durability != "step"):
        raise ReplicaLost("the runner of the run died, and nothing that it had done was kept")
    if past.deaths > MAX_DEATHS:
        raise ReplicaLost(
            f"{past.deaths} runners died at the run, one after the other, without getting further"
        )


def _bounded(request: RunRequest, plan: ExecutionPlan) -> RunRequest:
    """The request within the policies of the plan, and without the plan: that is kept beside it."""
    deadline = request.deadline
    if plan.policies.deadline_s is not None:
        deadline = min(deadline, time.time() + plan.policies.deadline_s)
    return msgspec.structs.replace(request, deadline=deadline, plan=None)
