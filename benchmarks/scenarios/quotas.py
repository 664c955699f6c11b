"""What it costs to decide whether a call is within its limits, and to settle it: the ledger and its scripts.

    decisions_per_s   calls that were reserved and settled, many at the same time
    gateway_us        CPU of the process that asks, for one of them
    store_us          CPU of the store, for one of them
    cpu_us            both together
    alone_us          how long one decision takes that nobody else is beside

The store is a Valkey of our own, on this machine, which flushes what it writes to the disk.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import psutil
import uvloop

from benchmarks.cases import Case, CaseArm, CaseSample, Described, Measured, Target, measure_cases
from benchmarks.scenario import Options
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Price, Spent
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import QuotaLedger

AMPLE = 10**12
"""A limit that counts and never refuses."""
TOGETHER = 64
"""Calls that are made at the same time."""
CALLS = 3_000
FEW = 500
"""In place of them, to try the scenario out."""
ALONE = 500
DEMAND = Demand("mock", 24, 20, price=Price(input=150_000, output=600_000))
SPENT = Spent(44, 16_000)
RECORD = bytes(250)
"""About as long as that of a call."""

RATES = Allowance(Limits(requests_per_minute=AMPLE, tokens_per_minute=AMPLE))
BUDGETS = Allowance(
    Limits(requests_per_minute=AMPLE, tokens_per_minute=AMPLE, tokens_per_day=AMPLE, money_per_month=AMPLE)
)
CALLERS = {
    "one": ("one limit, of tokens a minute", Allowance(Limits(tokens_per_minute=AMPLE)), Allowance()),
    "two": ("two limits: requests and tokens a minute", RATES, Allowance()),
    "eight": (
        "eight limits: rates, tokens a day and money a month, of the key and of its organisation",
        BUDGETS,
        BUDGETS,
    ),
}


class QuotasScenario:
    """Implements `CaseScenario`."""

    def __init__(self, options: Options) -> None:
        self._calls = FEW if options.fake else CALLS

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        with tempfile.TemporaryDirectory(prefix="cgq-") as folder:
            server = EmbeddedValkey(Path(folder))
            url = server.start_or_adopt()
            try:
                store = psutil.Process(server.pid())
                return uvloop.run(_measure(url, store, self._calls, repeats, progress))
            finally:
                server.stop()


async def _measure(
    url: str, server: psutil.Process, calls: int, repeats: int, progress: Callable[[CaseSample], None]
) -> tuple[list[Described], list[CaseSample]]:
    store = Store.connect(url, timeout_s=5)
    try:
        arms = []
        for name, (describe, own, wider) in CALLERS.items():
            caller = Caller(name, "k", "t", allowance=own, organisation_allowance=wider)
            arms.append(CaseArm(name, describe, _deciding(store, server, caller, calls)))
        case = Case(
            "decision",
            f"a call reserved and settled, {TOGETHER} at a time",
            arms,
            [Target("cpu_us", name, "<=", 1000.0) for name in CALLERS],
            ("gateway_us", "store_us"),
        )
        return [Described.of(case)], await measure_cases([case], repeats, progress)
    finally:
        await store.close()


def _deciding(
    store: Store, server: psutil.Process, caller: Caller, calls: int
) -> Callable[[str], Awaitable[Measured]]:
    ledger = QuotaLedger(store)

    async def run(name: str) -> Measured:
        await _decide(ledger, caller, f"{name}-warm", calls // 10)
        cpu, stored, began = process_time(), _cpu_s(server), perf_counter()
        await _decide(ledger, caller, name, calls)
        took = perf_counter() - began
        gateway_us = (process_time() - cpu) / calls * 1e6
        store_us = (_cpu_s(server) - stored) / calls * 1e6
        figures = {
            "decisions_per_s": calls / took,
            "gateway_us": gateway_us,
            "store_us": store_us,
            "cpu_us": gateway_us + store_us,
            "alone_us": await _alone_us(ledger, caller, name),
        }
        totals = await ledger.totals(caller.tenant, caller.id)
        return Measured(figures, (totals.open, totals.tokens == totals.requests * SPENT.tokens))

    return run


async def _decide(ledger: QuotaLedger, caller: Caller, name: str, calls: int) -> None:
    """Reserves and settles so many calls."""
    numbers = iter(range(calls))

    async def one_after_the_other() -> None:
        for number in numbers:
            held = await ledger.reserve(caller, DEMAND, reservation_id=f"{name}-{number}", record=RECORD)
            await ledger.settle(held, SPENT, RECORD)

    await asyncio.gather(*(one_after_the_other() for _ in range(TOGETHER)))


async def _alone_us(ledger: QuotaLedger, caller: Caller, name: str) -> float:
    took = []
    for number in range(ALONE):
        began = perf_counter()
        held = await ledger.reserve(caller, DEMAND, reservation_id=f"{name}-alone-{number}", record=RECORD)
        took.append((perf_counter() - began) * 1e6)
        await ledger.settle(held, SPENT, RECORD)
    return median(took)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
