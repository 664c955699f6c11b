"""Calls that go on while gateways cannot reach their store: how fast they are decided, and what is charged.

Decisions are timed where they are made, from when a gateway hears of a request to the first byte of its
answer, and where they are told: what a client sees holds the waiting of its own event loop and of the others
too, which on a machine that runs all of them is most of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve_apps.gateway.limits import Limits
from tests.chaos.figures import percentile
from tests.chaos.gateways import Gateway, Site, gateway, site
from tests.chaos.lines import Line, Told
from tests.serve_apps.conftest import eventually

Break = Callable[[], Awaitable[None]]
"""Breaks the store and mends it."""

PAUSE_S = 0.05
"""After a call: the load leaves the machine time to decide."""
WORKERS = 16
MAX_TOKENS = 16


@dataclass
class Outage:
    """What was told so far, and when the store could not be reached."""

    at: Site
    told: list[Told] = field(default_factory=list)
    breaks: list[tuple[float, float]] = field(default_factory=list)
    """From and until."""
    logs: list[Path] = field(default_factory=list)

    async def during(self, break_it: Break) -> None:
        """Waits until calls are admitted, breaks the store, has it mended and waits until they are again."""
        await self.admitting()
        began = time.monotonic()
        await break_it()
        self.breaks.append((began, time.monotonic()))
        await self.admitting()

    async def admitting(self) -> None:
        """Until a call that is asked from now on is admitted by each gateway."""
        now = time.monotonic()

        async def admitted() -> bool:
            by = {told.gateway for told in self.told if told.asked > now and told.status == 200}
            return len(by) == len(self.logs)

        await eventually(admitted, 60.0)

    def figures(self, *gateways: int) -> dict[str, float]:
        """Of the calls that were decided while the store could not be reached, at these gateways."""
        hit = [
            told
            for told in self.told
            if told.gateway in gateways and any(b < told.heard and told.asked < e for b, e in self.breaks)
        ]
        decided, seen = [told.decided_s for told in hit], [told.heard - told.asked for told in hit]
        return {
            "breaks": len(self.breaks),
            "answered": sum(told.status == 200 for told in self.told),
            "admitted_without": sum(told.status == 200 for told in hit),
            "refused": sum(told.status == 503 for told in hit),
            "decided_s_p50": percentile(decided, 0.5),
            "decided_s_p99": percentile(decided, 0.99),
            "decided_s_max": max(decided),
            "seen_s_p50": percentile(seen, 0.5),
            "seen_s_p99": percentile(seen, 0.99),
            "recovered_after_s_max": max(self._recovered(gateways)),
            "log_lines_max": max(_lines(self.logs[number]) for number in gateways),
        }

    def _recovered(self, gateways: tuple[int, ...]) -> list[float]:
        """From each mending to the first call that was admitted after it."""
        return [
            min(t.heard for t in self.told if t.gateway == n and t.status == 200 and t.asked > until) - until
            for _, until in self.breaks
            for n in gateways
        ]


def _lines(log: Path) -> int:
    """Of what a gateway logged, those that tell of no call."""
    return sum('"event":"call"' not in line for line in log.read_text().splitlines())


@asynccontextmanager
async def outage(
    urls: list[str],
    folder: Path,
    *,
    timeout_s: float,
    shares: int = 0,
    limits: Limits | None = None,
    patient_url: str | None = None,
) -> AsyncIterator[Outage]:
    """Calls go on through one gateway for each URL of the store, until the block ends; then all is settled,
    and what was answered is charged: all of it, and once."""
    limits = limits or Limits(tokens_per_minute=10**8, **({} if shares else {"tokens_per_day": 10**8}))
    folder.mkdir(exist_ok=True)
    async with AsyncExitStack() as ending:
        at = await ending.enter_async_context(site(patient_url or urls[0], limits))
        made = Outage(at, logs=[folder / f"gateway-{number}.log" for number in range(len(urls))])
        gateways = [
            ending.enter_context(gateway(url, timeout_s=timeout_s, shares=shares, log=log))
            for url, log in zip(urls, made.logs, strict=True)
        ]
        async with _calling(made, gateways):
            yield made
        answered = sum(told.tokens for told in made.told)

        async def charged() -> bool:
            totals = await at.totals()
            assert totals.tokens <= answered
            return totals.open == 0 and totals.tokens == answered

        await eventually(charged, 60.0)


@asynccontextmanager
async def _calling(made: Outage, gateways: list[Gateway]) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def work(number: int) -> None:
        line = Line(number, gateways[number].url, made.at.token, MAX_TOKENS)
        while not over.is_set():
            made.told.append(await line.call())
            await asyncio.sleep(PAUSE_S)
        line.close()

    async with asyncio.TaskGroup() as workers:
        for worker in range(WORKERS):
            workers.create_task(work(worker % len(gateways)))
        try:
            yield
        finally:
            over.set()
