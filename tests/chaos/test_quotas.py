"""Rows 3, 4 and 5: quotas while gateways, in processes of their own, and the store are killed and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.gateway.quotas import LEASE_S
from tests.chaos.figures import percentile, report, times
from tests.chaos.gateways import at_once, exactly_six, orphans
from tests.chaos.outages import Break, outage
from tests.chaos.stores import StoreServer

CALLS_AT_ONCE = 1000
OPEN_CALLS = 200
GATEWAY_KILLS = 20
STORE_KILLS = 20
DOWN_S = 0.5
STOPPED_S = 10.0
STORE_TIMEOUT_S = 0.1
"""As the settings have it."""
DECIDED_S = 0.15
"""What a decision may take while the store cannot be reached."""
RECOVERED_S = 2.0


@pytest.fixture(params=["valkey", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[StoreServer]:
    server = StoreServer(kind, tmp_path / "store")
    server.start()
    yield server
    server.kill()


def counted(kind: str, count: int) -> int:
    """All of it on Valkey, which is what we ship; a tenth on Redis."""
    return times(count) if kind == "valkey" else max(1, times(count) // 10)


async def test_calls_at_once_on_one_key(store: StoreServer, kind: str) -> None:
    calls = times(CALLS_AT_ONCE)
    whole = await at_once(store.url, calls=calls, kill_one=False)
    killed = await at_once(store.url, calls=calls, kill_one=True)
    six = await exactly_six(store.url)
    report(
        3,
        f"calls at once on one key over 3 gateways ({kind})",
        calls=calls,
        admitted=whole["admitted"],
        over_the_limit=whole["over_the_limit"],
        over_the_limit_with_one_killed=killed["over_the_limit"],
        admitted_of_20_times_75_against_500=six,
    )
    assert whole["over_the_limit"] == killed["over_the_limit"] == 0
    assert six == 6


async def test_a_gateway_that_holds_reservations_is_killed(store: StoreServer, kind: str) -> None:
    kills, open_calls = counted(kind, GATEWAY_KILLS), OPEN_CALLS
    seconds = []
    for _ in range(kills):
        figures = await orphans(store.url, open_calls=open_calls, lease_s=LEASE_S, token_s=0.4, slack_s=1.0)
        seconds.append(figures["settled_after_s"])
    report(
        4,
        f"kill -9 of a gateway with open reservations ({kind})",
        kills=kills,
        open=open_calls,
        lease_s=LEASE_S,
        settled_after_s_p50=percentile(seconds, 0.5),
        settled_after_s_max=max(seconds),
    )


@pytest.mark.parametrize("policy", ["refuse", "local_share"])
async def test_the_store_is_killed(store: StoreServer, kind: str, policy: str, tmp_path: Path) -> None:
    async def break_it() -> None:
        await asyncio.to_thread(store.kill)
        await asyncio.sleep(DOWN_S)
        await asyncio.to_thread(store.start)

    await broken(
        store, tmp_path, policy, break_it, counted(kind, STORE_KILLS), f"kill -9 of the store ({kind}"
    )


@pytest.mark.parametrize("policy", ["refuse", "local_share"])
async def test_the_store_is_stopped(store: StoreServer, kind: str, policy: str, tmp_path: Path) -> None:
    async def break_it() -> None:
        store.stop()
        await asyncio.sleep(STOPPED_S)
        store.go_on()

    await broken(store, tmp_path, policy, break_it, 1, f"the store stopped for {STOPPED_S:.0f} s ({kind}")


async def broken(
    store: StoreServer, folder: Path, policy: str, break_it: Break, count: int, title: str
) -> None:
    """Calls go on through two gateways while the store is broken so many times."""
    shares = 2 if policy == "local_share" else 0
    async with outage([store.url] * 2, folder / "logs", timeout_s=STORE_TIMEOUT_S, shares=shares) as seen:
        for _ in range(count):
            await seen.during(break_it)
    figures = seen.figures(0, 1)
    report(5, f"{title}, {policy})", **figures)
    assert figures["decided_s_p99"] < DECIDED_S
    assert figures["recovered_after_s_max"] < RECOVERED_S
    assert (figures["admitted_without"] > figures["refused"]) == (policy == "local_share")
    # A line when it goes out and one when it is back: it may go out once more while it starts.
    assert figures["log_lines_max"] <= 4 * count
