"""Journals in one process: for notebooks and tests. Several runners may share one `MemoryJournals`.

What is kept is packed as in the store, so that it comes back as it would from there.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec

from runtime.durability.bounds import Entry, Shelf, Told
from runtime.durability.journal import Head, Journal, Kept, Taken
from runtime.durability.model import (
    KEEP_S,
    LEASE_S,
    MAX_RUNS,
    Checkpoint,
    Lease,
    Numbered,
    RunState,
)
from runtime.durability.packing import pack, unpack
from runtime.durability.standing import refusal, refused, state_after, too_many
from runtime.events import RunEvent, decode_event
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest


class _Run:
    """What is kept of one run."""

    def __init__(self, request: RunRequest, plan: ExecutionPlan) -> None:
        self.request = request
        self.plan = plan
        self.state: RunState = "running"
        self.token = 1
        self.held_until = 0.0
        self.told = Told()
        self.events: list[Numbered] = []
        self.entries: dict[str, Entry] = {}
        self.shelf = Shelf()
        self.touched = 0.0
        self.changed = asyncio.Event()
        """Set, and replaced, whenever there is more to follow."""

    def done(self) -> dict[str, Checkpoint]:
        unpacked = (unpack(entry.packed, entry.values) for entry in self.entries.values())
        return {each.path: each for each in unpacked if each is not None}

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryJournals:
    """A `runtime.durability.journal.Journals`, for one event loop."""

    def __init__(
        self,
        *,
        lease_s: float = LEASE_S,
        keep_s: float = KEEP_S,
        most: int = MAX_RUNS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`most`: runs of one tenant; `keep_s`: after the last word of a run; `clock` gives Unix seconds."""
        self._lease_s = lease_s
        self._keep_s = keep_s
        self._most = most
        self._clock = clock
        self._runs: dict[tuple[str, str], _Run] = {}
        """By tenant and run id, in the order in which they began."""

    async def begin(
        self, request: RunRequest, plan: ExecutionPlan, done: Sequence[Checkpoint] = ()
    ) -> Journal:
        self._forget(request.tenant)
        key = request.tenant, request.run_id
        if key in self._runs:
            raise refused(request.run_id, "exists")
        self._make_room(request.tenant)
        run = _Run(request, plan)
        self._keep(run, done)
        run.held_until = self._clock() + self._lease_s
        run.touched = self._clock()
        self._runs[key] = run
        return _MemoryJournal(self, run, run.done())

    async def take(self, tenant: str, run_id: str, *, deadline: float | None = None) -> Taken:
        run = self._find(tenant, run_id)
        why = refusal(run.state, held=run.held_until > self._clock(), resumed=deadline is not None)
        if why is not None:
            raise refused(run_id, why)
        if deadline is not None:
            run.request = msgspec.structs.replace(run.request, deadline=deadline)
        run.state = "running"
        run.token += 1
        run.held_until = self._clock() + self._lease_s
        run.touched = self._clock()
        return Taken(_MemoryJournal(self, run, run.done()), run.request, run.plan)

    async def head(self, tenant: str, run_id: str) -> Head:
        run = self._find(tenant, run_id)
        return Head(run.request, run.state, run.token)

    async def read(self, tenant: str, run_id: str) -> Kept:
        run = self._find(tenant, run_id)
        return Kept(run.request, run.plan, run.state, run.token, run.done())

    async def abandoned(self) -> Sequence[tuple[str, str]]:
        now = self._clock()
        return [
            key
            for key, run in self._runs.items()
            if run.state == "running" and run.told.number and run.held_until <= now
        ]

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        lost = []
        for lease in leases:
            run = self._runs.get((lease.tenant, lease.run_id))
            if run is None or run.token != lease.token or run.state != "running":
                lost.append(lease)
            else:
                run.held_until = self._clock() + self._lease_s
                run.touched = self._clock()
        return lost

    async def follow(
        self, tenant: str, run_id: str, after: int = 0, *, wait: bool = True
    ) -> AsyncGenerator[list[Numbered], None]:
        run = self._find(tenant, run_id)
        while True:
            changed, number, over = run.changed, run.told.number, not wait or run.state != "running"
            more = run.events[bisect_right(run.events, after, key=lambda each: each.number) :]
            after = max(after, number)
            if more:
                yield more
            if over:
                return
            if not more:
                await changed.wait()

    def _find(self, tenant: str, run_id: str) -> _Run:
        """A run that others can see."""
        self._forget(tenant)
        run = self._runs.get((tenant, run_id))
        if run is None or not run.told.number:
            raise refused(run_id, "unknown")
        return run

    def _forget(self, tenant: str) -> None:
        """Runs that are too old, and those whose runner died before it said a word."""
        now = self._clock()
        for key, run in list(self._runs.items()):
            unborn = not run.told.number and run.held_until <= now
            if key[0] == tenant and (unborn or run.touched + self._keep_s <= now):
                del self._runs[key]

    def _make_room(self, tenant: str) -> None:
        of_tenant = [(key, run) for key, run in self._runs.items() if key[0] == tenant]
        if len(of_tenant) < self._most:
            return
        ended = [key for key, run in of_tenant if run.state in ("succeeded", "failed")]
        if not ended:
            raise too_many(self._most)
        del self._runs[min(ended, key=lambda key: self._runs[key].touched)]

    def _append(
        self, run: _Run, token: int, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]
    ) -> None:
        key = run.request.tenant, run.request.run_id
        if self._runs.get(key) is not run:
            raise refused(run.request.run_id, "unknown")
        if run.token != token or run.state != "running":
            raise refused(run.request.run_id, "lost")
        self._keep(run, checkpoints)
        for number, packed in run.told.add(events):
            run.events.append(Numbered(number, decode_event(packed)))
        if events:
            run.state = state_after(events[-1])
        over = run.state != "running"
        run.held_until = 0.0 if over else self._clock() + self._lease_s
        run.touched = self._clock()
        run.tell()

    def _keep(self, run: _Run, checkpoints: Sequence[Checkpoint]) -> None:
        entries = [pack(each) for each in checkpoints]
        dropped = run.shelf.add(entries)
        run.entries.update({entry.checkpoint.path: entry for entry in entries})
        for path in dropped.paths:
            run.entries.pop(path, None)

    def _give_back(self, run: _Run, token: int) -> None:
        if run.token == token:
            run.held_until = 0.0


class _MemoryJournal:
    def __init__(self, journals: MemoryJournals, run: _Run, done: Mapping[str, Checkpoint]) -> None:
        self._journals = journals
        self._run = run
        self.lease = Lease(run.request.tenant, run.request.run_id, run.token)
        self.attempt = run.token
        self.number = run.told.number
        self.done = done

    async def append(self, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]) -> None:
        self._journals._append(self._run, self.lease.token, events, checkpoints)
        self.number = self._run.told.number

    async def close(self) -> None:
        self._journals._give_back(self._run, self.lease.token)
