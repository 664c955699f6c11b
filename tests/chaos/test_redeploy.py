"""Row 19: everything is deployed again while it is in use.

Once with a new version of a graph, once with another script of a model. Gateways and runners are replaced
both times, the replicas of the model only the second time. No call may fail, and the new version answers at
the end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.client import Told, client, post
from tests.chaos.cluster import Cluster, until
from tests.chaos.figures import percentile, report, times
from tests.chaos.load import STEPS, deploy, under_load
from tests.e2e.system import RunningSystem

REDEPLOYS = 5
ROLLED = ("gateway", "runner")
MODEL = "model-smollm2"


def _redeploy(system: RunningSystem, cluster: Cluster, model: bool, number: int) -> None:
    """Says `clustergraph deploy` with another version, and waits until no replica of the last one is left."""
    config = yaml.safe_load(system.config.read_text())
    _new_version(config, number)
    replaced = ROLLED
    if model:
        config["models"][0]["script"]["output_tokens"] = 17 + number
        replaced = (*ROLLED, MODEL)
    system.config.write_text(yaml.safe_dump(config))
    before = {name: {each.id for each in cluster.replicas(name)} for name in (*ROLLED, MODEL)}
    deploy(system)

    def rolled() -> bool:
        now = {name: cluster.replicas(name) for name in before}
        return all(
            len(now[name]) == 2
            and all(each.state == "RUNNING" and each.id not in before[name] for each in now[name])
            for name in replaced
        )

    until(rolled, "the replicas of the last version to be gone", 180)
    kept = {each.id for each in cluster.replicas(MODEL)} == before[MODEL]
    assert kept is not model, "a model is replaced if it has changed, and only then"


def _new_version(config: dict[str, Any], number: int) -> None:
    """Puts another version of the graph `steps` in place of the one that is deployed."""
    [file] = [path for path in config["graphs"] if Path(path).name.startswith("steps")]
    pipeline = yaml.safe_load(Path(file).read_text())
    pipeline["metadata"]["version"] = f"1.{number}.0"
    changed = Path(config["data_dir"]).parent / f"steps-{number}.yaml"
    changed.write_text(yaml.safe_dump(pipeline))
    config["graphs"] = [str(changed) if path == file else path for path in config["graphs"]]


async def _version(system: RunningSystem, key: str) -> str:
    async with client(system, key) as http:
        told = await post(http, STEPS, {"inputs": {"subject": "fog"}})
    assert told.done, told
    return str(told.body["version"])


def test_redeploying_under_load(system: RunningSystem, cluster: Cluster) -> None:
    key, record = system.key()
    told: list[Told] = []
    redeploys = times(REDEPLOYS)
    for number in range(1, redeploys + 1):
        cluster.until_whole(MODEL, 2)

        def work(number: int = number) -> None:
            _redeploy(system, cluster, number % 2 == 0, number)

        told += under_load(system, [key], work)
        assert asyncio.run(_version(system, key)) == f"1.{number}.0"
    failed = [each for each in told if not each.done]
    totals = system.settled(record)
    took = [each.ended - each.sent for each in told]
    report(
        19,
        "redeploying under load",
        redeploys=redeploys,
        requests=len(told),
        failed=len(failed),
        request_s_p50=percentile(took, 0.5),
        request_s_p99=percentile(took, 0.99),
        tokens_held=totals.reserved,
        reservations_expired=totals.expired,
    )
    assert [(each.status, each.error, each.cut, len(each.pieces)) for each in failed] == []
    assert (totals.reserved, totals.expired) == (0, 0)
