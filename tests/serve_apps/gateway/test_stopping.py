"""How a gateway that is stopped ends what it is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from cluster.engines.fake import FakeScript
from serve_apps.gateway.errors import Unavailable
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.stopping import OpenRequests
from tests.serve_apps.conftest import CHAT, Site, Start, eventually

ENDLESS = FakeScript(token_s=2.0, output_tokens=40)
CALL: dict[str, Any] = {
    "model": CHAT,
    "messages": [{"role": "user", "content": "go on"}],
    "max_tokens": 40,
}


async def _running(site: Site, count: int) -> None:
    async def so_many() -> bool:
        return (await site.engine.status()).running == count

    await eventually(so_many)


async def test_nothing_is_open() -> None:
    assert await OpenRequests().stop(60.0) == 0


async def test_a_request_that_ends_within_the_grace_is_not_broken_off() -> None:
    requests = OpenRequests()
    exchange = Exchange({"path": "/", "headers": []}, asyncio.Queue[Any]().get, _nowhere)
    requests.add(exchange)
    stopping = asyncio.create_task(requests.stop(60.0))
    await asyncio.sleep(0)
    requests.remove(exchange)
    assert await stopping == 0
    assert len(requests) == 0


async def test_one_that_has_ended_is_not_broken_off_again() -> None:
    exchange = Exchange({"path": "/", "headers": []}, asyncio.Queue[Any]().get, _nowhere)

    async def ended() -> str:
        async with exchange.bounded(60.0, 0.0):
            pass
        exchange.break_off(Unavailable("too late"))
        await asyncio.sleep(0)
        return "to its end"

    assert await asyncio.create_task(ended()) == "to its end"


async def test_calls_in_flight_are_told_and_settled(start: Start) -> None:
    site = await start(ENDLESS)

    async def streamed() -> list[str]:
        async with site.http.stream("POST", "/v1/chat/completions", json=CALL | {"stream": True}) as answer:
            return [line async for line in answer.aiter_lines() if line]

    stream = asyncio.create_task(streamed())
    whole = asyncio.create_task(site.http.post("/v1/chat/completions", json=CALL))
    await _running(site, 2)
    assert await site.app.stop(0.0) == 2
    assert await site.app.stop(0.0) == 0, "they have ended"
    assert '"code":"stopping"' in (await stream)[-1]
    refused = await whole
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    await _running(site, 0)

    async def settled() -> bool:
        return (await site.deps.quotas.totals("acme", site.key.key_id)).open == 0

    await eventually(settled)


async def test_what_comes_then_is_refused_with_when_to_come_again(site: Site) -> None:
    await site.app.stop(0.0)
    for path in ("/v1/chat/completions", "/v1/messages"):
        refused = await site.http.post(path, json=CALL)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
    async with httpx.AsyncClient(base_url=site.url) as anybody:
        assert (await anybody.get("/readyz")).status_code == 503


async def _nowhere(_message: object) -> None:
    return
