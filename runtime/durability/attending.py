"""Keeps what a runner drives its own, and takes up what runners that died have left.

    renew    every third of a lease   one batch for all runs of the runner; whose lease is lost is given up
    look     about every second       some of the runs that nobody holds, in an order of its own

Runners look at different moments and take runs in different orders, so that when one dies its runs spread
over the others; where two want the same run, one gets it and the other is told so.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from cluster.errors import ClusterError
from runtime.durability.journal import Journals
from runtime.errors import RunEnded, RunHeld, UnknownRun
from runtime.runner import Runner
from runtime.store.errors import StoreError

RENEWALS_PER_LEASE = 3
LOOK_EVERY_S = 1.0
"""Mean; each pause is half to three halves of it."""
MOST_AT_ONCE = 16
"""Runs that are taken up in one look: the others are left to others, or to the next look."""

log = structlog.get_logger(__name__)


async def attend(
    runner: Runner, journals: Journals, lease_s: float, look_every_s: float = LOOK_EVERY_S
) -> None:
    """Renews and looks again and again, until cancelled. `lease_s` is how long a lease lasts."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_renew(runner, journals, lease_s / RENEWALS_PER_LEASE))
        tasks.create_task(_look(runner, journals, look_every_s))


async def _renew(runner: Runner, journals: Journals, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        leases = runner.leases
        if not leases:
            continue
        try:
            lost = await journals.renew(leases)
        except StoreError as error:
            log.warning("leases_not_renewed", count=len(leases), reason=str(error))
            continue
        for lease in lost:
            log.warning("lease_lost", run_id=lease.run_id)
            runner.lose(lease)


async def _look(runner: Runner, journals: Journals, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s * random.uniform(0.5, 1.5))  # noqa: S311 - it spreads load, no more
        try:
            left = list(await journals.abandoned())
        except StoreError as error:
            log.warning("abandoned_runs_unknown", reason=str(error))
            continue
        for tenant, run_id in random.sample(left, min(len(left), MOST_AT_ONCE)):
            await _take_up(runner, tenant, run_id)


async def _take_up(runner: Runner, tenant: str, run_id: str) -> None:
    try:
        await runner.take_up(tenant, run_id)
    except (RunHeld, RunEnded, UnknownRun):
        return  # another runner was faster
    except ClusterError as error:
        log.warning("run_not_taken_up", run_id=run_id, reason=error.message)
    else:
        log.info("run_taken_up", run_id=run_id)
