"""Malformed bodies, some of those that `make chaos` sends, over HTTP and to every route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from runtime.store.client import Store
from tests.serve_apps.api.durable import Desk, desks
from tests.serve_apps.conftest import CHAT, EMBED, Start
from tests.serve_apps.malformed import Sent, malformed, post_routes

BODIES = 400
AT_ONCE = 8


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[Desk]:
    async with desks(start, one_store) as start_one:
        yield await start_one()


async def test_a_malformed_body_is_the_clients_mistake_on_every_route(desk: Desk) -> None:
    async def send(sent: Sent) -> httpx.Response:
        return await desk.site.http.post(sent.path, content=sent.body, headers=sent.headers, timeout=120)

    wrong, refused = [], 0
    bodies = list(malformed(1, BODIES, smollm2=CHAT, minilm=EMBED))
    for start in range(0, BODIES, AT_ONCE):
        some = bodies[start : start + AT_ONCE]
        for sent, answer in zip(some, await asyncio.gather(*map(send, some)), strict=True):
            refused += answer.status_code >= 400
            if answer.status_code >= 500 or (answer.is_error and "error" not in json.loads(answer.text)):
                wrong.append((sent.path, sent.headers, sent.body[:200], answer.text))
    assert wrong == []
    assert refused > BODIES / 2
    assert (await desk.site.settled()).reserved == 0


def test_every_route_with_a_body_is_among_them() -> None:
    paths = {path for path, _ in post_routes()}
    assert {"/v1/chat/completions", "/v1/responses", "/v1/runs", "/v1/messages"} <= paths
    assert not any("{" in path for path in paths)
