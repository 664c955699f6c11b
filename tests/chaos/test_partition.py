"""Row 6: a gateway that is cut off from the store, without a sound, while another one reaches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.gateway.limits import Limits
from tests.chaos.figures import report
from tests.chaos.network import Network, network
from tests.chaos.outages import outage
from tests.chaos.stores import StoreServer
from tests.chaos.test_quotas import DECIDED_S, RECOVERED_S, STORE_TIMEOUT_S
from tests.serve_apps.conftest import eventually

PORT = 6391
CUT_S = 30.0
LIMIT = 19 * 1000
"""A thousand calls: the other gateway alone has used them up long before the partition ends."""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(params=["valkey", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(net: Network, kind: str, tmp_path: Path) -> Iterator[StoreServer]:
    server = StoreServer(kind, tmp_path / "store", port=PORT, inside=net.inside)
    server.start()
    yield server
    server.kill()


def urls(net: Network) -> list[str]:
    return [f"redis://{net.address(link)}:{PORT}" for link in range(2)]


async def test_one_gateway_is_cut_off(net: Network, store: StoreServer, kind: str, tmp_path: Path) -> None:
    """It decides in time, and admits again when it can."""

    async def break_it() -> None:
        await asyncio.to_thread(net.cut, 0)
        await asyncio.sleep(CUT_S)
        await asyncio.to_thread(net.mend, 0)

    logs = tmp_path / "logs"
    async with outage(urls(net), logs, timeout_s=STORE_TIMEOUT_S, patient_url=store.url) as seen:
        await seen.during(break_it)
    figures = seen.figures(0)
    report(6, f"a gateway cut off from the store for {CUT_S:.0f} s ({kind})", **figures)
    assert figures["decided_s_p99"] < DECIDED_S
    assert figures["recovered_after_s_max"] < RECOVERED_S
    # One when it is cut off and one when it is back; a busy machine may miss an answer once more.
    assert figures["log_lines_max"] <= 4


async def test_nothing_is_admitted_over_a_budget(
    net: Network, store: StoreServer, kind: str, tmp_path: Path
) -> None:
    limits = Limits(tokens_per_day=LIMIT)
    async with outage(
        urls(net), tmp_path / "logs", timeout_s=STORE_TIMEOUT_S, limits=limits, patient_url=store.url
    ) as seen:
        await seen.admitting()
        await asyncio.to_thread(net.cut, 0)
        cut = time.monotonic()
        await asyncio.sleep(CUT_S)
        await asyncio.to_thread(net.mend, 0)
        mended = time.monotonic()

        async def refused_by_the_ledger() -> bool:
            late = [told for told in seen.told if told.asked > mended and told.status == 429]
            return {told.gateway for told in late} == {0, 1}

        await eventually(refused_by_the_ledger, 60.0)
    cut_off = [told.status for told in seen.told if told.gateway == 0 and cut < told.asked < mended - 1]
    answered = sum(told.tokens for told in seen.told)
    report(
        6,
        f"a budget while a gateway is cut off from the store for {CUT_S:.0f} s ({kind})",
        limit=LIMIT,
        used=answered,
        over_the_limit=max(0, answered - LIMIT),
        refused_where_cut_off=len(cut_off),
        admitted_where_cut_off=cut_off.count(200),
    )
    assert set(cut_off) == {503}
    assert LIMIT - 19 < answered <= LIMIT
