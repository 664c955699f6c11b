"""Rows 3, 4 and 5: quotas while gateways, in processes of their own, and the store are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.quotas import LEASE_S
from tests.chaos.figures import percentile, report, times
from tests.chaos.gateways import at_once, exactly_six, orphans, store_breaks
from tests.runtime.store.test_embedded import kill

CALLS_AT_ONCE = 1000
OPEN_CALLS = 200
GATEWAY_KILLS = 20
STORE_KILLS = 20
STOPPED_S = 10.0
STORE_TIMEOUT_S = 0.1
"""As the settings have it."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(tmp_path / "store")
    yield valkey
    valkey.stop()


async def test_calls_at_once_on_one_key(valkey: EmbeddedValkey) -> None:
    url = await asyncio.to_thread(valkey.start_or_adopt)
    calls = times(CALLS_AT_ONCE)
    whole = await at_once(url, calls=calls, kill_one=False)
    killed = await at_once(url, calls=calls, kill_one=True)
    six = await exactly_six(url)
    report(
        3,
        "calls at once on one key over 3 gateways",
        calls=calls,
        admitted=whole["admitted"],
        over_the_limit=whole["over_the_limit"],
        over_the_limit_with_one_killed=killed["over_the_limit"],
        admitted_of_20_times_75_against_500=six,
    )
    assert whole["over_the_limit"] == killed["over_the_limit"] == 0
    assert six == 6


async def test_a_gateway_that_holds_reservations_is_killed(valkey: EmbeddedValkey) -> None:
    url = await asyncio.to_thread(valkey.start_or_adopt)
    kills, open_calls = times(GATEWAY_KILLS), OPEN_CALLS
    seconds = []
    for _ in range(kills):
        figures = await orphans(url, open_calls=open_calls, lease_s=LEASE_S, token_s=0.4, slack_s=1.0)
        seconds.append(figures["settled_after_s"])
    report(
        4,
        "kill -9 of a gateway with open reservations",
        kills=kills,
        open=open_calls,
        lease_s=LEASE_S,
        settled_after_s_p50=percentile(seconds, 0.5),
        settled_after_s_max=max(seconds),
    )


async def test_the_store_is_killed(valkey: EmbeddedValkey) -> None:
    url = await asyncio.to_thread(valkey.start_or_adopt)

    async def break_it() -> None:
        await asyncio.to_thread(kill, valkey)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(valkey.start_or_adopt)

    figures = await store_breaks(url, break_it, times=times(STORE_KILLS), timeout_s=STORE_TIMEOUT_S)
    report(5, "kill -9 of the store", **figures)
    assert figures["recovered_after_s_max"] < 2


async def test_the_store_is_stopped(valkey: EmbeddedValkey) -> None:
    url = await asyncio.to_thread(valkey.start_or_adopt)

    async def break_it() -> None:
        pid = valkey.pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(STOPPED_S)
        os.kill(pid, signal.SIGCONT)

    figures = await store_breaks(url, break_it, times=1, timeout_s=STORE_TIMEOUT_S)
    report(5, f"the store stopped for {STOPPED_S:.0f} s", **figures)
    assert figures["recovered_after_s_max"] < 2
