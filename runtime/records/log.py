"""Records of the runs of one process, written behind their backs.

    run ──event──► Trace ──begun, ended──► waiting ──► writer ──► store

A run only adds to its trace. The writer makes records of the traces that wait and writes them, several at
once. It is bounded: beyond `MAX_WAITING` a record is lost, as it is when the store is out; that is said once
when it begins and once when it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from time import perf_counter

import structlog

from runtime.events import (
    NodeWaiting,
    RunEvent,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
)
from runtime.executor.queue import Watch
from runtime.records.model import RunRecord
from runtime.records.store import RunStore
from runtime.records.trace import Trace
from runtime.request import RunRequest
from runtime.runner import Earlier
from runtime.store.errors import StoreError
from runtime.store.naming import check_name

MAX_WAITING = 1_000
"""Runs whose records wait to be written."""
BATCH = 64
"""Records of one round trip."""
GATHER_S = 0.02
"""How long records wait for company. A run that is over by then is written once."""

_WRITTEN_AT = RunStarted | RunResumed | NodeWaiting | RunSuspended | RunFinished | RunFailed

log = structlog.get_logger(__name__)


class RunLog:
    """A `runtime.runner.Witness` that keeps a record of every run. `write` must run for as long."""

    def __init__(self, records: RunStore, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self._records = records
        self._clock = clock
        self._waiting: dict[str, Trace] = {}
        """By run id: a run that ends before its beginning was written is written once."""
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._lost = 0
        """Records since the last one that was written."""

    def watch(self, request: RunRequest, earlier: Earlier | None = None) -> Watch:
        if not _can_be_kept(request):
            return _ignore
        now, began = self._clock(), perf_counter()
        if earlier is None:
            trace = Trace(request, now)
        else:
            trace, began = Trace(request, earlier.started, earlier.attempt), began - (now - earlier.started)
            trace.replay(earlier.events)

        def watch(event: RunEvent) -> None:
            nonlocal began
            if isinstance(event, RunStarted):
                began = perf_counter()
            trace.add(event, perf_counter() - began)
            if isinstance(event, _WRITTEN_AT) and trace.accepted:
                self._submit(request.run_id, trace)

        return watch

    async def write(self) -> None:
        """Writes what waits, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits now, and returns when that is done or lost."""
        async with self._writing:
            while self._waiting:
                await self._write_some()

    def _submit(self, run_id: str, trace: Trace) -> None:
        if len(self._waiting) >= MAX_WAITING and run_id not in self._waiting:
            self._lose(1, "too many wait")
            return
        self._waiting[run_id] = trace
        self._wake.set()

    async def _write_some(self) -> None:
        records: list[RunRecord] = []
        for run_id in list(islice(self._waiting, BATCH)):
            records.append(self._waiting.pop(run_id).record())
            await asyncio.sleep(0)  # a large record takes milliseconds: runs go first
        try:
            await self._records.write(records)
        except StoreError as error:
            self._lose(len(records), str(error))
        else:
            if self._lost:
                log.warning("run_records_kept_again", lost=self._lost)
                self._lost = 0

    def _lose(self, count: int, reason: str) -> None:
        if not self._lost:
            log.warning("run_records_lost", reason=reason)
        self._lost += count


def _can_be_kept(request: RunRequest) -> bool:
    """Runs of no tenant, as in a notebook, have no place in the store."""
    try:
        check_name("tenant", request.tenant)
        check_name("run_id", request.run_id)
    except StoreError:
        return False
    return True


def _ignore(_event: RunEvent) -> None:
    pass
