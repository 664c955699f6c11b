"""Ends runs that somebody asked to cancel, whichever process drives them."""

from __future__ import annotations

import asyncio

import structlog

from runtime.records.store import RunStore
from runtime.runner import Runner
from runtime.store.errors import StoreError

LOOK_EVERY_S = 0.4
"""A run ends within this, and the time that its engines take to hear of it."""

log = structlog.get_logger(__name__)


async def end_cancelled(runner: Runner, records: RunStore, every_s: float = LOOK_EVERY_S) -> None:
    """Looks again and again, until cancelled; asks the store only while something runs."""
    reachable = True
    while True:
        await asyncio.sleep(every_s)
        try:
            asked = await records.asked_to_cancel(runner.running) if runner.running else []
        except StoreError as error:
            if reachable:
                log.warning("cancelling_unavailable", reason=str(error))
            reachable = False
            continue
        reachable = True
        for tenant, run_id in asked:
            runner.cancel(tenant, run_id)
