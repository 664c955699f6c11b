"""Row 7: kill -9 of a runner in mid-run.

Another runner goes on with its durable runs. Whoever follows one sees it resumed and ended as if nothing had
been: the same outputs, and no node begun again of which it was told that it is done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.chaos.client import Told, client, post, stream
from tests.chaos.cluster import Cluster, Replica
from tests.chaos.figures import on, percentile, report, times
from tests.e2e.system import RunningSystem

KILLS = 50
STEPS = "/v1/graphs/steps/runs"
NODES = 6
RUNS = 4
"""At the same time, every second of them in the background."""
DONE_BEFORE = 2
"""Nodes that each run has done when the runner dies."""


def _body(subject: str, number: int) -> dict[str, Any]:
    return {
        "inputs": {"subject": subject},
        "durability": "step",
        "background": number % 2 == 0,
    }


def _done(told: Told) -> int:
    return sum(event["type"] == "node_finished" for event in told.events)


async def _wave(
    system: RunningSystem, cluster: Cluster, key: str, victim: Replica
) -> tuple[list[Told], float]:
    seen = [Told(0.0) for _ in range(RUNS)]
    async with client(system, key) as http:
        runs = [
            asyncio.create_task(stream(http, STEPS, _body("tides", number), told))
            for number, told in enumerate(seen)
        ]
        while not all(told.ended or _done(told) >= DONE_BEFORE for told in seen):
            await asyncio.sleep(0.01)
        killed = time.monotonic()
        cluster.kill(victim)
        return await asyncio.gather(*runs), killed


def _begun_again(told: Told) -> int:
    """Nodes that began, or ended, after they had ended."""
    done: set[str] = set()
    again = 0
    for event in told.events:
        if event["type"] in ("node_started", "node_finished"):
            again += event["node"] in done
        if event["type"] == "node_finished":
            done.add(event["node"])
    return again


def _resumed(told: Told) -> bool:
    return any(event["type"] == "run_resumed" for event in told.events)


async def _undisturbed(system: RunningSystem, key: str) -> Any:
    async with client(system, key) as http:
        told = await post(http, STEPS, {"inputs": {"subject": "tides"}})
    assert told.done, told
    return told.body["outputs"]


def test_a_runner_that_is_killed(system: RunningSystem, cluster: Cluster) -> None:
    expected = asyncio.run(_undisturbed(system, system.key()[0]))
    told = runners_killed(system, cluster, times(KILLS))
    assert [run.events[-1] for run in told if run.events[-1].get("outputs") != expected] == []


def runners_killed(system: RunningSystem, cluster: Cluster, kills: int, engine: str = "fake") -> list[Told]:
    """So many, one after the other; what the clients of their runs were told."""
    key, record = system.key()
    told: list[Told] = []
    after: list[float] = []
    for number in range(kills):
        victim = cluster.until_whole("runner", 2)[number % 2]
        runs, killed = asyncio.run(_wave(system, cluster, key, victim))
        told += runs
        after += [run.ended - killed for run in runs if _resumed(run)]
        cluster.until_whole("runner", 2, without=victim.id)
    wrong = [run for run in told if not run.done]
    again = sum(map(_begun_again, told))
    unlike = [run for run in told if run.done and _done(run) != NODES]
    difference = abs(system.settled(record).tokens - sum(run.tokens for run in told))
    report(
        7,
        "kill -9 of a runner in mid-run" + on(engine),
        kills=kills,
        runs=len(told),
        resumed=sum(map(_resumed, told)),
        ended_wrongly=len(wrong),
        completed_nodes_run_again=again,
        ledger_difference_tokens=difference,
        end_after_kill_s_p50=percentile(after, 0.5),
        end_after_kill_s_p99=percentile(after, 0.99),
    )
    assert [(run.status, run.error, run.cut, run.events[-1:]) for run in wrong] == []
    assert again == 0
    assert unlike == []
    assert difference == 0
    assert sum(map(_resumed, told)) > 0, "some of the runs are to be those of the runner that dies"
    return told
