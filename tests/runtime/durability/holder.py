"""A process that goes on with a run when it can: `python -m tests.runtime.durability.holder URL NAME`.

It tells the run who writes, as NodeStarted("NAME", "TOKEN") again and again, and prints `wrote TOKEN` when it
has begun to and `lost TOKEN` when it was fenced out.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from runtime.durability.journal import Journal
from runtime.durability.stored import StoredJournals
from runtime.errors import LeaseLost, RunHeld
from runtime.events import NodeStarted, RunResumed
from runtime.store.client import Store

LEASE_S = 1.5
PAUSE_S = 0.02


async def compete(url: str, name: str) -> None:
    journals = StoredJournals(Store.connect(url, timeout_s=5), name, lease_s=LEASE_S)
    while True:
        journal = await _taken(journals)
        token = str(journal.lease.token)
        with suppress(LeaseLost):
            await journal.append([RunResumed("run-1", journal.attempt, 0), NodeStarted(name, token)], [])
            print("wrote", token, flush=True)
            while True:
                await asyncio.sleep(PAUSE_S)
                await journal.append([NodeStarted(name, token)], [])
        print("lost", token, flush=True)


async def _taken(journals: StoredJournals) -> Journal:
    while True:
        for tenant, run_id in await journals.abandoned():
            with suppress(RunHeld):
                return (await journals.take(tenant, run_id)).journal
        await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    asyncio.run(compete(*sys.argv[1:]))
