"""Several gateways in processes of their own, what is done to them, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx

from runtime.store.client import Store
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import LEASE_S, QuotaLedger, Totals
from tests.chaos.lines import CALL_S, Line
from tests.serve_apps.conftest import CHAT, eventually

REPOSITORY = Path(__file__).parents[2]
PATIENT_S = 10.0


class Gateway:
    """One process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()


@contextmanager
def gateway(
    store_url: str,
    *,
    timeout_s: float = 5.0,
    lease_s: float = LEASE_S,
    token_s: float = 0.0,
    output_tokens: int = 16,
    shares: int = 0,
    log: Path = Path(os.devnull),
) -> Iterator[Gateway]:
    """As `gateway_process` has it."""
    words = [store_url, timeout_s, lease_s, token_s, output_tokens, shares]
    command = [sys.executable, "-m", "tests.chaos.gateway_process", *map(str, words)]
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the gateway did not start"
        try:
            yield Gateway(process, url)
        finally:
            process.kill()


class Site:
    """A store, and a key whose ledger is looked at."""

    def __init__(self, store: Store, token: str, caller: Caller) -> None:
        self.store = store
        self.token = token
        self.caller = caller
        self.ledger = QuotaLedger(store)

    async def totals(self) -> Totals:
        return await self.ledger.totals(self.caller.tenant, self.caller.id)

    async def settled(self, seconds: float) -> float:
        """Seconds until nothing is open."""
        began = time.monotonic()

        async def none_open() -> bool:
            return (await self.totals()).open == 0

        await eventually(none_open, seconds)
        return time.monotonic() - began


@asynccontextmanager
async def site(store_url: str, limits: Limits) -> AsyncIterator[Site]:
    """The store emptied, and one key made."""
    store = Store.connect(store_url, timeout_s=PATIENT_S)
    await store.execute("FLUSHALL")
    token, record = await KeyStore(store, bytes(PEPPER_BYTES)).create(
        "acme", "tests", allowance=Allowance(limits)
    )
    yield Site(store, token, Caller("acme", record.key_id, allowance=Allowance(limits)))
    await store.close()


@asynccontextmanager
async def client(token: str, connections: int = 400) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=CALL_S, verify=False) as http:
        yield http


async def call(url: str, token: str) -> tuple[int, int]:
    """Status and tokens of a call over a connection of its own; 0 where the gateway died."""
    line = Line(0, url, token, 72)
    try:
        told = await line.call()
    except (OSError, EOFError):
        return 0, 0
    finally:
        line.close()
    return told.status, told.tokens


async def hold_open(http: httpx.AsyncClient, url: str, max_tokens: int) -> None:
    """A stream that is read until it ends or its gateway dies."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": "go on"}], "stream": True}
    with suppress(httpx.TransportError):
        async with http.stream(
            "POST", f"{url}/v1/chat/completions", json=body | {"max_tokens": max_tokens}
        ) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_bytes():
                pass


async def orphans(
    store_url: str, *, open_calls: int, lease_s: float, token_s: float, slack_s: float
) -> dict[str, float]:
    """A gateway is killed that holds so many calls; another one settles them. What it took, and what was
    charged. Fails where that takes longer than the lease and `slack_s`."""
    async with site(store_url, Limits()) as at, client(at.token) as http:
        with gateway(store_url, lease_s=lease_s, token_s=token_s) as lives:
            with gateway(store_url, lease_s=lease_s, token_s=token_s, output_tokens=150) as dies:
                calls = [asyncio.create_task(hold_open(http, dies.url, 150)) for _ in range(open_calls)]

                async def all_seen() -> bool:
                    """Open, and heard of with something that they have come to."""
                    fields = await at.store.execute("HKEYS", "cgh:{acme}:quota:open")
                    return sum(field.endswith(b":seen") for field in fields) == open_calls

                await eventually(all_seen, 60.0)
                await asyncio.sleep(lease_s / 3)
                dies.kill()
                seconds = await at.settled(lease_s + slack_s)
                await asyncio.gather(*calls)
            totals = await at.totals()
            assert (totals.requests, totals.expired, totals.reserved) == (open_calls, open_calls, 0)
            assert 2 * open_calls <= totals.tokens <= 152 * open_calls
            status, _ = await call(lives.url, at.token)
            assert status == 200
    return {"settled_after_s": seconds, "tokens": totals.tokens}


async def at_once(store_url: str, *, calls: int, kill_one: bool) -> dict[str, int]:
    """So many calls at the same time on one key over three gateways, one of which is killed in the middle."""
    limit = 75 * calls // 8
    async with site(store_url, Limits(tokens_per_minute=limit, tokens_per_day=limit)) as at:
        with (
            gateway(store_url, lease_s=4.0, token_s=0.01) as first,
            gateway(store_url, lease_s=4.0, token_s=0.01) as second,
            gateway(store_url, lease_s=4.0, token_s=0.01) as third,
        ):
            urls = [first.url, second.url, third.url]
            asked = [asyncio.create_task(call(urls[number % 3], at.token)) for number in range(calls)]
            if kill_one:

                async def some_in() -> bool:
                    return (await at.totals()).requests > 10

                await eventually(some_in, 60.0)
                third.kill()
            answers = await asyncio.gather(*asked)
            await at.settled(60.0)
            totals = await at.totals()
    used = sum(tokens for _, tokens in answers)
    # Who was answered by the one that is killed may be so before its call is settled: then as an orphan.
    lived = sum(tokens for number, (_, tokens) in enumerate(answers) if number % 3 != 2)
    assert lived <= totals.tokens <= limit
    if not kill_one:
        assert used == totals.tokens
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) <= {200, 429, *([0] if kill_one else [])}, statuses
    return {
        "calls": calls,
        "admitted": sum(status == 200 for status, _ in answers),
        "refused": sum(status == 429 for status, _ in answers),
        "over_the_limit": max(0, totals.tokens - limit),
    }


async def exactly_six(store_url: str) -> int:
    """20 reservations of 75 tokens against 500, over three ledgers at the same time."""
    limits = Limits(tokens_per_minute=500)
    async with site(store_url, limits) as at:
        with gateway(store_url, token_s=0.3) as one, gateway(store_url, token_s=0.3) as two:
            answers = await asyncio.gather(*(call((one, two)[n % 2].url, at.token) for n in range(20)))
            await at.settled(60.0)
    return sum(status == 200 for status, _ in answers)
