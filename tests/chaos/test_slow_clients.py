"""Row 10: clients that are slow on purpose, with headers, bodies and reading, while others call as ever."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx

from tests.chaos.client import CHAT, Told, chat, client, post
from tests.chaos.figures import percentile, report, times
from tests.e2e.system import AT_LENGTH, RunningSystem
from tests.serve_apps.slow import slow_clients

CONNECTIONS = 1_200
CALLS = 2_000
AT_ONCE = 8
EVERY_S = 2.0
"""Between two bytes."""


async def _call(http: httpx.AsyncClient, count: int) -> list[Told]:
    told = [Told(0.0) for _ in range(count)]
    left = iter(range(count))

    async def work() -> None:
        for number in left:
            told[number] = await post(http, CHAT, chat(f"Why {number}?"))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return told


def test_slow_clients(system: RunningSystem) -> None:
    key, _ = system.key()
    slow_key, _ = system.key()
    at = urlsplit(system.url)
    long = chat(AT_LENGTH, stream=True) | {"model": "solo", "max_tokens": 1_500}

    async def both() -> tuple[list[Told], list[Told], int]:
        async with client(system, key, AT_ONCE) as http:
            alone = await _call(http, times(CALLS) // 4)
            async with slow_clients(
                at.hostname or "", at.port or 0, slow_key, long, times(CONNECTIONS), EVERY_S
            ) as tasks:
                beside = await _call(http, times(CALLS))
                return alone, beside, sum(not task.done() for task in tasks)

    alone, beside, connected = asyncio.run(both())
    good = sum(told.done for told in beside)
    report(
        10,
        "slow clients",
        connections=times(CONNECTIONS),
        still_connected=connected,
        calls=len(beside),
        good_share=good / len(beside),
        call_s_p50_alone=percentile([told.ended - told.sent for told in alone], 0.5),
        call_s_p50=percentile([told.ended - told.sent for told in beside], 0.5),
        call_s_p99=percentile([told.ended - told.sent for told in beside], 0.99),
    )
    assert good / len(beside) >= 0.999, [told for told in beside if not told.done][:5]
