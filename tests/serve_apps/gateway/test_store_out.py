"""The gateway's decisions while the store is out: refused in time, or by its part of the rates; and after."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from serve_apps.gateway.admission import Admission, Ticket
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.errors import RateLimited
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.quotas import QuotaLedger, Totals
from tests.serve_apps.conftest import eventually
from tests.serve_apps.gateway.test_admission import FixedMeter, Told, told

RunRedis = Callable[..., AbstractContextManager[subprocess.Popen[str]]]
TIMEOUT_S = 2.0
KEY = Caller("acme", "k1", allowance=Allowance(Limits(requests_per_minute=100, tokens_per_minute=100)))
DEMAND = Demand("m", 10, 0, seconds=60.0)


class Outage:
    """A store that can be stopped and go on."""

    def __init__(self, server: subprocess.Popen[str], url: str) -> None:
        self._server = server
        self.store = Store.connect(url, timeout_s=TIMEOUT_S, fail_fast=True)
        self.patient = Store.connect(url, timeout_s=10.0)

    def begin(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        self.end()
        await self.store.close()
        await self.patient.close()


async def closed(admission: Admission, ticket: Ticket, tokens: int) -> None:
    with ticket.charged(FixedMeter(tokens, begun=True)):
        pass


async def test_decisions_fail_fast_and_recover(
    run_redis: RunRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    socket = tmp_path / "r.sock"
    with run_redis("--port", "0", "--unixsocket", str(socket)) as server:
        outage = Outage(server, f"unix://{socket}")
        admission = Admission(QuotaLedger(outage.store))
        ticket = await admission.reserve(KEY, "before", DEMAND, Told())
        with caplog.at_level(logging.WARNING, "runtime.store.client"):
            outage.begin()
            began, waited = time.monotonic(), []
            while time.monotonic() < began + 1.5 * TIMEOUT_S:
                asked = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await admission.reserve(KEY, f"during-{asked}", DEMAND)
                waited.append(time.monotonic() - asked)
                await asyncio.sleep(0.001)
            await closed(admission, ticket, 7)
            outage.end()
            ledger = QuotaLedger(outage.patient)

            async def settled() -> bool:
                return (await ledger.totals("acme", "k1")).tokens == 7

            await eventually(settled)
            await closed(admission, await admission.reserve(KEY, "after", DEMAND), 1)
            await admission.drain(60.0)
        assert sorted(waited)[len(waited) // 2] < TIMEOUT_S / 2
        events = [record.getMessage().split(":")[0] for record in caplog.records]
        assert events == ["store_out", "store_back"]
        assert await told(outage.patient) == [b"done 7 70"]
        await outage.close()


async def test_rates_fall_back_to_the_local_share_and_are_told_afterwards_once(
    run_redis: RunRedis, tmp_path: Path
) -> None:
    socket = tmp_path / "r.sock"
    with run_redis("--port", "0", "--unixsocket", str(socket)) as server:
        outage = Outage(server, f"unix://{socket}")
        admission = Admission(QuotaLedger(outage.store), LocalShare(2))
        outage.begin()
        tickets = [await admission.reserve(KEY, f"c{number}", DEMAND, Told()) for number in range(5)]
        with pytest.raises(RateLimited, match="50 tokens a minute"):
            await admission.reserve(KEY, "c5", DEMAND, Told())
        budget = Caller("acme", "k2", allowance=Allowance(Limits(tokens_per_day=10**6)))
        with pytest.raises(StoreUnavailable):
            await admission.reserve(budget, "c6", DEMAND)
        for ticket in tickets[:4]:
            await closed(admission, ticket, 5)
        outage.end()
        await closed(admission, tickets[4], 5)
        await admission.drain(60.0)
        ledger = QuotaLedger(outage.patient)
        assert await ledger.totals("acme", "k1") == Totals(requests=5, tokens=25, nanodollars=250)
        assert [state.remaining for state in await ledger.left(KEY)] == [95, 75]
        assert await told(outage.patient) == [b"done 5 50"] * 5
        for number in range(5):
            assert not await ledger.charge(KEY, "m", f"c{number}", tickets[0].spent)
        await outage.close()
