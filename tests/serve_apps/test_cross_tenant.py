"""One tenant's probes at what another has, some of those that `make chaos` makes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from runtime.store.client import Store
from tests.serve_apps.api.durable import Desk, desks
from tests.serve_apps.conftest import CHAT, Start
from tests.serve_apps.probes import KINDS, differences, plant, probes, replayed


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[Desk]:
    async with desks(start, one_store) as start_one:
        yield await start_one()


async def test_what_is_another_tenants_is_as_what_there_is_not(desk: Desk) -> None:
    owner = desk.site.http
    planted = await plant(owner, CHAT, "letter", {"topic": "xyzzy-7f3a", "ask": True}, 1)
    run_id = planted.names["run"]
    await desk.is_now(run_id, "suspended", "running")
    token, _ = await desk.site.deps.keys.create("rival", "spy")
    made = list(probes(CHAT, "letter"))
    async with httpx.AsyncClient(base_url=desk.site.url, headers={"authorization": f"Bearer {token}"}) as spy:
        assert await differences(spy, planted, made) == []
        assert not await replayed(spy, CHAT, planted)
    assert len(made) > 60
    for path in ("responses/" + planted.names["response"], "contexts/" + planted.names["context"]):
        assert (await owner.get(f"/v1/{path}")).status_code == 200, "the spy deleted it"
    assert (await desk.look(run_id))["status"] in ("suspended", "running")


async def test_the_owner_tells_them_apart(desk: Desk) -> None:
    """Else the probes above would look at nothing."""
    planted = await plant(desk.site.http, CHAT, "letter", {"topic": "xyzzy-7f3a"}, 1)
    reads = [
        probe
        for probe in probes(CHAT, "letter")
        if probe.method == "GET" and probe.path.endswith("/NAME") and probe.kind in KINDS
    ]
    told = await differences(desk.site.http, planted, reads)
    assert {each.probe.kind for each in told} == set(KINDS)
