"""What is done later with runs of pipelines that came with a call, and who may do it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from runtime.store.client import Store
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.api.durable import PIPELINE, Desk, StartDesk, desks
from tests.serve_apps.conftest import CHAT, Start, eventually

MINE = PIPELINE.replace("name: letter", "name: mine").replace("draft of", "my draft of")


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[StartDesk]:
    async with desks(start, one_store) as start_one:
        yield start_one


async def begin(at: Desk, http: httpx.AsyncClient | None = None) -> str:
    body = {"pipeline": MINE, "inputs": {"topic": "thanks"}, "background": True, "durability": "step"}
    answer = await (http or at.site.http).post("/v1/runs", json=body, timeout=120)
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


async def test_a_run_in_the_background_is_followed_and_forked(desk: StartDesk) -> None:
    at = await desk()
    run_id = await begin(at)
    record = await at.is_now(run_id, "succeeded")
    assert record["graph"] == "inline/mine"
    assert [event["type"] for _, event in await at.events(run_id)][-1] == "run_finished"
    answer = await at.post(run_id, "fork", **{"from": "draft", "outputs": {"text": "edited"}})
    forked = answer.json()
    assert (forked["graph"], forked["outputs"]["text"]) == ("inline/mine", "edited and polished")
    assert at.asked("my draft of") == 1
    listed = (await at.site.http.get("/v1/runs?graph=letter")).json()["data"]
    assert listed == []


async def test_keys_with_a_list_see_their_own_and_nobody_elses(desk: StartDesk, keys: KeyStore) -> None:
    at = await desk()
    free = await begin(at)
    await at.is_now(free, "succeeded")
    lists = {"other": [CHAT], "named": [CHAT, "graph/mine", "graph/inline/mine"]}
    for name, models in lists.items():
        token, _ = await keys.create("acme", name, models=models)
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=at.site.url, headers=headers) as listed:
            for path in ("", "/events"):
                assert (await listed.get(f"/v1/runs/{free}{path}")).status_code == 404
            assert (await listed.post(f"/v1/runs/{free}/fork", json={})).status_code == 404
            own = await begin(at, listed)
            await at.is_now(own, "succeeded")
            assert (await listed.get(f"/v1/runs/{own}")).status_code == 200

            async def is_listed(own: str = own, listed: httpx.AsyncClient = listed) -> bool:
                """Records are written behind the runs' backs."""
                runs = (await listed.get("/v1/runs")).json()["data"]
                assert [run["run_id"] for run in runs] in ([], [own])
                return bool(runs)

            await eventually(is_listed)
    token, _ = await keys.create("rival", "free")
    async with httpx.AsyncClient(base_url=at.site.url, headers={"authorization": f"Bearer {token}"}) as rival:
        assert (await rival.get(f"/v1/runs/{free}")).status_code == 404
