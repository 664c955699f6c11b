"""A process that holds reservations is killed: what it leaves behind is charged what was seen of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from runtime.store.client import Store
from serve_apps.gateway.quotas import QuotaLedger
from tests.serve_apps.conftest import eventually

REPOSITORY = Path(__file__).parents[3]
HOLDER = """
import asyncio, sys
from runtime.store.client import Store
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.quotas import Observed, QuotaLedger

async def hold():
    ledger = QuotaLedger(Store.connect(sys.argv[1], timeout_s=10), lease_s=3.0)
    asked = (
        ledger.reserve(Caller("acme", "k1"), Demand("m", 9, 0), reservation_id=f"r{n}", record=b"orphan")
        for n in range(200)
    )
    held = await asyncio.gather(*asked)
    await ledger.renew("acme", [Observed(each.reservation_id, Spent(4, 40)) for each in held[:150]])
    print("held", flush=True)
    await asyncio.sleep(600)

asyncio.run(hold())
"""


def hold_and_die(url: str) -> None:
    command = [sys.executable, "-c", HOLDER, url]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()


async def test_200_reservations_of_a_killed_process_are_settled(one_store: Store, valkey_url: str) -> None:
    await asyncio.to_thread(hold_and_die, valkey_url)
    ledger = QuotaLedger(one_store)

    async def all_settled() -> bool:
        await ledger.settle_due()
        return (await ledger.totals("acme", "k1")).open == 0

    await eventually(all_settled)
    totals = await ledger.totals("acme", "k1")
    assert (totals.requests, totals.expired, totals.reserved) == (200, 200, 0)
    assert (totals.tokens, totals.nanodollars) == (600, 6000)
    assert await one_store.execute("XLEN", "cgh:{acme}:usage:records") == 200
