"""Slow clients, some of those that `make chaos` connects: they hold up nobody else."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from cluster.engines.fake import FakeScript, Rule
from serve_apps.settings import GatewaySettings
from tests.serve_apps.conftest import CHAT, Start, eventually
from tests.serve_apps.slow import slow_clients

SLOW = 90
CALLS = 60
AT_ONCE = 6
EVERY_S = 0.2
LONG = "word " * 100


async def test_slow_clients_hold_up_nobody(start: Start) -> None:
    site = await start(
        FakeScript(rules=[Rule(contains="at length", reply=LONG)], tokens_per_batch=1),
        settings=GatewaySettings(default_timeout_s=60),
    )
    at = urlsplit(site.url)
    body = {
        "model": CHAT,
        "messages": [{"role": "user", "content": "at length"}],
        "stream": True,
        "max_tokens": 150,
    }
    assert at.hostname is not None
    assert at.port is not None
    async with slow_clients(at.hostname, at.port, site.token, body, SLOW, EVERY_S):
        statuses = []
        for _ in range(CALLS // AT_ONCE):
            answers = await asyncio.gather(*(site.chat() for _ in range(AT_ONCE)))
            statuses += [answer.status_code for answer in answers]
    assert statuses == [200] * CALLS

    async def nothing_left() -> bool:
        return (await site.engine.status()).running == 0

    await eventually(nothing_left)
    assert (await site.settled()).open == 0
