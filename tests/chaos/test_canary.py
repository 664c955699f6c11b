"""Row 19: a canary of a model and of a graph, from a few of the calls to all of them and back, under load.

Its part is raised with `clustergraph deploy`. No call may fail; whoever had the canary has it still while its
part grows; and when the first config is deployed again nobody has it.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.client import CHAT, Told, chat, client, post
from tests.chaos.cluster import Cluster, until
from tests.chaos.figures import report, times
from tests.chaos.load import STEPS, deploy, under_load
from tests.e2e.system import RunningSystem

PARTS = (10, 50, 100)
"""Percent of the canary, one deploy after the other."""
USERS = 60
KEYS = 6
NEXT = "9.0.0"
CANARIES = ("solo", f"graph/steps@{NEXT}")
ROLLED = ("gateway", "runner")


def _with_part(system: RunningSystem, percent: int) -> None:
    """Writes the canary's part into the config, and the next version of the graph beside the one that is
    there."""
    config = yaml.safe_load(system.config.read_text())
    [file] = [path for path in config["graphs"] if Path(path).name.startswith("steps")]
    pipeline = yaml.safe_load(Path(file).read_text())
    stable = pipeline["metadata"]["version"]
    pipeline["metadata"]["version"] = NEXT
    canary = Path(config["data_dir"]).parent / "canary-steps.yaml"
    canary.write_text(yaml.safe_dump(pipeline))
    config["graphs"] = [*(path for path in config["graphs"] if path != str(canary)), str(canary)]
    rest = 100 - percent
    config["traffic"] = {
        "smollm2": {"smollm2": rest, "solo": percent},
        "graph/steps": {f"graph/steps@{stable}": rest, f"graph/steps@{NEXT}": percent},
    }
    system.config.write_text(yaml.safe_dump(config))


def _roll(system: RunningSystem, cluster: Cluster) -> None:
    """Deploys the config, and waits until every gateway and runner knows it."""
    before = {name: {each.id for each in cluster.replicas(name)} for name in ROLLED}
    deploy(system)

    def rolled() -> bool:
        now = {name: cluster.replicas(name) for name in ROLLED}
        return all(
            len(now[name]) == 2
            and all(each.state == "RUNNING" and each.id not in before[name] for each in now[name])
            for name in ROLLED
        )

    until(rolled, "the replicas of the last config to be gone", 180)


async def _canary_has(system: RunningSystem, keys: list[str]) -> set[str]:
    """The users and keys that the canary answers."""

    async def user(number: int) -> tuple[str, Told]:
        async with client(system, keys[0]) as http:
            return f"user {number}", await post(http, CHAT, chat("Why?", user=f"user-{number}"))

    async def key(number: int) -> tuple[str, Told]:
        async with client(system, keys[number]) as http:
            return f"key {number}", await post(http, STEPS, {"inputs": {"subject": "tides"}})

    asked = await asyncio.gather(*map(user, range(USERS)), *map(key, range(len(keys))))
    assert [told.error for _, told in asked if not told.done] == []
    return {who for who, told in asked if told.headers.get("x-served-by") in CANARIES}


def test_a_canary_under_load(system: RunningSystem, cluster: Cluster) -> None:
    made = [system.key() for _ in range(KEYS)]
    keys = [key for key, _ in made]
    stable = system.config.read_text()
    parts = PARTS[: max(2, times(len(PARTS)))]
    told: list[Told] = []
    had: list[set[str]] = []
    for percent in parts:
        _with_part(system, percent)
        told += under_load(system, keys, lambda: _roll(system, cluster))
        had.append(asyncio.run(_canary_has(system, keys)))
    system.config.write_text(stable)
    told += under_load(system, keys, lambda: _roll(system, cluster))
    back = asyncio.run(_canary_has(system, keys))
    failed = [each for each in told if not each.done]
    totals = [system.settled(record) for _, record in made]
    left = sum(len(before - after) for before, after in pairwise(had))
    figures: dict[str, Any] = {f"has_it_at_{percent}_percent": len(had[n]) for n, percent in enumerate(parts)}
    report(
        19,
        "a canary of a model and of a graph under load",
        deploys=len(parts) + 1,
        requests=len(told),
        failed=len(failed),
        asked_each_time=USERS + KEYS,
        **figures,
        lost_it_while_it_grew=left,
        has_it_when_taken_back=len(back),
        tokens_held=sum(each.reserved for each in totals),
        reservations_expired=sum(each.expired for each in totals),
    )
    assert [(each.status, each.error, each.cut, len(each.pieces)) for each in failed] == []
    assert (left, back) == (0, set())
    for percent, who in zip(parts, had, strict=True):
        assert abs(len(who) - (USERS + KEYS) * percent / 100) <= 15, (percent, len(who))
    assert [(each.reserved, each.expired) for each in totals] == [(0, 0)] * KEYS
