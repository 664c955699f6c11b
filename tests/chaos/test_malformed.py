"""Row 9: bodies that nobody should send, to every route that takes one.

None is answered with a 5xx, none costs a token where it is refused, and the gateways do not grow.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import psutil

from tests.chaos.client import client
from tests.chaos.cluster import Cluster
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem
from tests.serve_apps.malformed import Sent, malformed

BODIES = 20_000
AT_ONCE = 8
WARM = 0.1
"""Share of the bodies after which the memory is looked at for the first time."""
MAX_GROWTH_MB = 50.0


async def _send(http: httpx.AsyncClient, bodies: list[Sent]) -> list[tuple[Sent, int, str]]:
    told: list[tuple[Sent, int, str]] = []
    left = iter(bodies)

    async def work() -> None:
        for sent in left:
            try:
                answer = await http.post(sent.path, content=sent.body, headers=sent.headers)
            except httpx.TransportError as error:
                told.append((sent, 0, type(error).__name__))
            else:
                told.append((sent, answer.status_code, answer.text))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return told


def _megabytes(cluster: Cluster) -> dict[str, float]:
    """What each gateway holds, by replica."""
    return {
        replica.id: psutil.Process(replica.pid).memory_info().rss / 2**20
        for replica in cluster.running("gateway")
    }


def _unlike(status: int, text: str) -> bool:
    """Whether an error does not have the shape of one."""
    if status < 400:
        return False
    try:
        body: Any = json.loads(text)
    except ValueError:
        return True
    return not isinstance(body, dict) or "error" not in body


def test_bodies_that_nobody_should_send(system: RunningSystem, cluster: Cluster) -> None:
    key, record = system.key()
    bodies = list(malformed(9, times(BODIES)))
    warm = max(1, round(len(bodies) * WARM))

    async def attack() -> tuple[list[tuple[Sent, int, str]], dict[str, float], dict[str, float]]:
        async with client(system, key, AT_ONCE) as http:
            told = await _send(http, bodies[:warm])
            before = _megabytes(cluster)
            told += await _send(http, bodies[warm:])
            return told, before, _megabytes(cluster)

    told, before, after = asyncio.run(attack())
    growth = {name: after[name] - before[name] for name in before}
    statuses = Counter(status for _, status, _ in told)
    wrong = [each for each in told if each[1] >= 500 or each[1] == 0 or _unlike(each[1], each[2])]
    reserved = system.settled(record).reserved
    report(
        9,
        "malformed bodies",
        bodies=len(told),
        refused=sum(count for status, count in statuses.items() if status >= 400),
        status_5xx=sum(count for status, count in statuses.items() if status >= 500),
        no_answer=statuses[0],
        rss_growth_mb=max(growth.values()),
        rss_mb=max(after.values()),
    )
    assert wrong == []
    assert max(growth.values()) < MAX_GROWTH_MB
    assert reserved == 0
