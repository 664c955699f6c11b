"""Runs that go on by themselves: begun within the quota of whoever asks, and settled when they end.

    reserve ─► the runner begins the run ─► a task of this gateway follows its journal ─► settle
                  └► it does not: release

A run whose runner dies goes on elsewhere, and so does the journal. When this gateway stops, what the run
owes so far is settled; when it dies, the reservation expires like any other. What a run owes after it was
suspended and resumed is settled by whoever resumed it: a person's decision, or this task, where the decision
came while the run was being suspended and nobody could see it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec
import structlog

from cluster.errors import ClusterError, ReplicaLost
from runtime.durability.journal import Journals
from runtime.errors import RunEnded, RunHeld, UnknownRun
from runtime.events import RunEvent, RunSuspended
from runtime.store.errors import StoreError
from serve_apps.gateway.admission import Ticket
from serve_apps.gateway.charging import bill_of
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.following import follow, is_over
from serve_apps.gateway.metering import RunMeter

GRACE_S: Final = 30.0
"""How long after its deadline a run is waited for: another runner may have to take it over to end it."""

_log = structlog.get_logger(__name__)


class Begun:
    """A run that was begun or resumed, and where its journal goes on."""

    def __init__(self, tenant: str, run_id: str, after: int = 0, before: RunMeter | None = None) -> None:
        self.tenant = tenant
        self.run_id = run_id
        self.after = after
        """Number of the last event before."""
        self.before = before
        """Has counted what was settled before."""


async def begin(request: Request, run: Begun, demand: Demand, start: Callable[[], Awaitable[None]]) -> None:
    """Reserves what the run may come to, has it `start`, and settles when it is over.

    Raises `RateLimited`, `ClusterError`, `StoreUnavailable`.
    """
    gateway, exchange, caller = request
    meter = RunMeter(gateway.prices, run.before)
    ticket = await gateway.admission.reserve(
        caller,
        exchange.id,
        msgspec.structs.replace(demand, seconds=demand.seconds + GRACE_S),
        bill_of(request, meter, demand.model),
    )
    exchange.added_headers += ticket.headers()
    try:
        await _surely(gateway, run, start)
    except BaseException as error:
        ticket.close(meter, error)
        raise
    exchange.spent = True
    gateway.attending.add(_settle(gateway, run, ticket, meter))


async def _surely(gateway: Gateway, run: Begun, start: Callable[[], Awaitable[None]]) -> None:
    """Begins the run. Where the runner died meanwhile, the journal knows whether it has begun."""
    try:
        await start()
    except ReplicaLost:
        try:
            await _journals(gateway).head(run.tenant, run.run_id)
        except UnknownRun:
            pass
        else:
            return
        raise


async def _settle(gateway: Gateway, run: Begun, ticket: Ticket, meter: RunMeter) -> None:
    with ticket.charged(meter):
        try:
            async with asyncio.timeout(ticket.granted.seconds):
                end = await _count(_journals(gateway), run, meter)
                while isinstance(end, RunSuspended) and await _goes_on(gateway, run, end):
                    end = await _count(_journals(gateway), run, meter)
        except (TimeoutError, UnknownRun, StoreError) as error:
            _log.warning("run_without_end", run_id=run.run_id, error=type(error).__name__)


async def _count(journals: Journals, run: Begun, meter: RunMeter) -> RunEvent | None:
    """The event with which the run is over for now."""
    async with aclosing(follow(journals, run.tenant, run.run_id, run.after)) as batches:
        async for batch in batches:
            for run.after, event in batch:
                meter.count([event])
                if is_over(event):
                    ended: RunEvent = event
                    return ended
    return None


async def _goes_on(gateway: Gateway, run: Begun, suspended: RunSuspended) -> bool:
    """Resumes a run for which a person decided while it was being suspended. Whether this task did."""
    if not await gateway.approvals.any_decided(run.tenant, run.run_id, suspended.waiting):
        return False
    assert gateway.runner is not None
    try:
        await gateway.runner.resume(run.tenant, run.run_id)
    except ClusterError as error:
        if not isinstance(error, RunHeld | RunEnded):  # else whoever decided was faster
            _log.warning("run_not_resumed", run_id=run.run_id, error=type(error).__name__)
        return False
    return True


def _journals(gateway: Gateway) -> Journals:
    assert gateway.journals is not None
    return gateway.journals


async def so_far(journals: Journals, tenant: str, run_id: str) -> Begun:
    """What the journal of a run that is over, or suspended, tells of it. Raises `UnknownRun`."""
    meter, number = RunMeter(), 0
    async with aclosing(follow(journals, tenant, run_id)) as batches:
        async for batch in batches:
            meter.count(each.event for each in batch)
            number = batch[-1].number
    return Begun(tenant, run_id, number, meter)
