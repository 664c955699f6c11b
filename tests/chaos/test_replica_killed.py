"""Row 1: kill -9 of a model replica in mid-stream.

What had not begun to answer goes to another replica, and nobody notices. What had begun ends with an error
event, never as if it were whole. The ledger charges what was told: whole answers by their usage, those that
were cut off by their prompt and the text that had left.
"""

from __future__ import annotations

import asyncio
import random
import time

from cluster.engines.fake import words
from tests.chaos.client import CHAT, Told, chat, client, post, stream
from tests.chaos.cluster import Cluster, Replica
from tests.chaos.figures import percentile, report, times
from tests.e2e.system import AT_LENGTH, RunningSystem

KILLS = 50
MODEL = "model-smollm2"
REPLICAS = 2
SHORT = "How so?"
LONG = f"Tell me of lighthouses {AT_LENGTH}."
RUNS = "/v1/graphs/support-rag/runs"
LONG_STREAMS = 6


async def _wave(
    system: RunningSystem, cluster: Cluster, key: str, victim: Replica
) -> tuple[list[Told], float]:
    """Calls of every kind, and the death of a replica in the midst of them; what they were told."""
    seen = [Told(0.0, prompt=LONG) for _ in range(LONG_STREAMS)]
    async with client(system, key) as http:
        long = [asyncio.create_task(stream(http, CHAT, chat(LONG, max_tokens=400), told)) for told in seen]
        while not all(told.started or told.ended for told in seen):
            await asyncio.sleep(0.01)
        fresh = [
            *(asyncio.create_task(post(http, CHAT, chat(f"Why {n}?"))) for n in range(4)),
            *(
                asyncio.create_task(stream(http, CHAT, chat(SHORT), Told(0.0, prompt=SHORT)))
                for _ in range(4)
            ),
            *(
                asyncio.create_task(post(http, RUNS, {"inputs": {"question": f"What is quota {n}?"}}))
                for n in range(2)
            ),
        ]
        await asyncio.sleep(random.uniform(0, 0.12))
        killed = time.monotonic()
        cluster.kill(victim)
        return await asyncio.gather(*long, *fresh), killed


def _owed(told: Told) -> int:
    if told.usage is not None:
        return told.tokens
    return len(words(told.prompt)) + len(words("".join(told.pieces)))


def test_a_replica_that_is_killed(system: RunningSystem, cluster: Cluster) -> None:
    lost: list[Told] = []
    unclear: list[Told] = []
    cut, whole, difference = 0, 0, 0
    told_after: list[float] = []
    slowest: list[float] = []
    kills = times(KILLS)
    for number in range(kills):
        victim = cluster.until_whole(MODEL, REPLICAS)[number % REPLICAS]
        key, record = system.key()
        calls, killed = asyncio.run(_wave(system, cluster, key, victim))
        for told in calls:
            if told.done and told.usage is not None:
                whole += 1
                slowest.append(told.ended - told.sent)
            elif told.started and told.error is not None and not told.cut:
                cut += 1
                told_after.append(told.ended - killed)
            else:
                (unclear if told.started else lost).append(told)
        difference += abs(system.settled(record).tokens - sum(map(_owed, calls)))
        cluster.until_whole(MODEL, REPLICAS, without=victim.id)
    report(
        1,
        "kill -9 of a model replica in mid-stream",
        kills=kills,
        whole=whole,
        cut_with_an_error=cut,
        unstarted_lost=len(lost),
        ends_unclear=len(unclear),
        ledger_difference_tokens=difference,
        error_after_s_p50=percentile(told_after, 0.5),
        error_after_s_p99=percentile(told_after, 0.99),
    )
    assert lost == []
    assert unclear == []
    assert difference == 0
    assert cut >= kills, "every kill is to hit streams that have begun"
