"""One key, many callers at once, several gateway replicas: never over the limit, and an exact ledger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import aiohttp
import pytest

from serve_apps.gateway.limits import Limits
from tests.e2e.system import ANSWER_TIMEOUT_S, RunningSystem

CALLS = 1000
LIMIT = 20_000


async def _fire(system: RunningSystem, key: str) -> list[tuple[int, int, str]]:
    """(status, total tokens, error code) of every call, all sent at once."""
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "one two three four five"}],
        "max_tokens": 70,
    }
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def call() -> tuple[int, int, str]:
            async with session.post(f"{system.url}/v1/chat/completions", json=body) as reply:
                answer = await reply.json()
                used = answer.get("usage", {}).get("total_tokens", 0)
                return reply.status, used, answer.get("error", {}).get("code", "")

        return await asyncio.gather(*(call() for _ in range(CALLS)))


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_a_thousand_calls_at_once_never_overspend(system: RunningSystem) -> None:
    assert system.settings.gateway.replicas == 2
    key, record = system.key(limits=Limits(tokens_per_minute=LIMIT))
    began = time.monotonic()
    answers = asyncio.run(_fire(system, key))
    minutes = 1 + (time.monotonic() - began) // 60
    outcomes = Counter((status, code) for status, _, code in answers)
    used = sum(tokens for _, tokens, _ in answers)
    assert set(outcomes) == {(200, ""), (429, "rate_limit_exceeded")}, outcomes
    totals = system.settled(record)
    assert used <= LIMIT * minutes
    assert totals.reserved == 0
    assert totals.tokens == used
    assert totals.requests == outcomes[200, ""]
