"""The events of a run, wherever it goes on.

    runner A ─► 1 2 3 ✝           a durable run whose runner dies is taken over by another, and its journal
    journal  ─► 1 2 3 4 5 6       tells the rest: the reader sees 1 2 3, `run_resumed`, 5, 6
    runner B ─►       4 5 6

Events are numbered by the journal over all runners, so nothing is told twice and nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import structlog

from cluster.errors import EngineFailed, ReplicaLost
from runtime.durability.journal import Journals
from runtime.durability.model import Numbered
from runtime.errors import UnknownRun
from runtime.events import RunEvent, RunFailed, RunFinished, RunSuspended
from runtime.records.store import RunStore
from runtime.request import RunRequest
from runtime.store.errors import StoreError, StoreUnavailable
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.metering import RunMeter

STORE_PAUSE_S = 0.25
"""Between two looks at a journal while the store is out."""

_log = structlog.get_logger(__name__)


async def run_events(
    gateway: Gateway, request: RunRequest, meter: RunMeter
) -> AsyncGenerator[list[RunEvent], None]:
    """The batches of a run, counted; one that keeps its steps goes on when its runner dies.

    Closing the iterator cancels the run. Raises `ClusterError`.
    """
    assert gateway.runner is not None
    seen, lost = 0, ReplicaLost("the runner of this graph died")
    try:
        async with aclosing(gateway.runner.run(request)) as batches:
            async for batch in batches:
                seen += len(batch)
                meter.count(batch)
                yield batch
                if is_over(batch[-1]):
                    return
    except ReplicaLost as error:
        lost = error
    if request.durability != "step" or gateway.journals is None:
        raise lost
    _log.warning("run_followed", run_id=request.run_id, seen=seen)
    try:
        async with aclosing(follow(gateway.journals, request.tenant, request.run_id, seen)) as kept:
            async for numbered in kept:
                events: list[RunEvent] = [each.event for each in numbered]
                meter.count(events)
                yield events
    except UnknownRun:
        raise lost from None
    except (asyncio.CancelledError, GeneratorExit):
        await cancel(gateway.runs, request.tenant, request.run_id)
        raise


async def follow(
    journals: Journals, tenant: str, run_id: str, after: int = 0
) -> AsyncGenerator[list[Numbered], None]:
    """The events behind number `after`, until the run has ended or is suspended. Waits while the store is
    out. Raises `UnknownRun`."""
    while True:
        try:
            async with aclosing(journals.follow(tenant, run_id, after)) as batches:
                async for events in batches:
                    yield events
                    after = events[-1].number
            return
        except StoreUnavailable:
            await asyncio.sleep(STORE_PAUSE_S)


async def cancel(runs: RunStore, tenant: str, run_id: str) -> None:
    """Has the run ended by whoever drives it. Never raises: a run ends at its deadline at the latest."""
    with suppress(StoreError):
        await asyncio.shield(runs.ask_to_cancel(tenant, run_id))


def is_over(event: RunEvent) -> bool:
    """Whether nothing follows the event, for now."""
    return isinstance(event, RunFinished | RunFailed | RunSuspended)


def unfinished() -> EngineFailed:
    """What to say of a run that stopped telling before its end."""
    return EngineFailed("the run ended before it was complete")
