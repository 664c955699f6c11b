"""Row 1, of what is above the replicas: kill -9 of Serve's controller under load.

Calls do not go through it, so none may notice. It comes back by itself, with all replicas as they were, and
does its work: a replica that is killed after that is replaced.
"""

from __future__ import annotations

import time

import psutil

from tests.chaos.client import Told
from tests.chaos.cluster import Cluster, until
from tests.chaos.figures import percentile, report, times
from tests.chaos.load import under_load
from tests.e2e.system import RunningSystem

KILLS = 10
DEPLOYMENTS = ("gateway", "runner", "model-smollm2")
MODEL = "model-smollm2"


def _controller(system: RunningSystem) -> psutil.Process | None:
    for process in system.processes():
        try:
            if " ".join(process.cmdline()).startswith("ray::ServeController"):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def _ids(cluster: Cluster) -> dict[str, set[str]]:
    return {name: {each.id for each in cluster.replicas(name)} for name in DEPLOYMENTS}


def _kill(system: RunningSystem, cluster: Cluster) -> float:
    """Kills the controller, and waits until another one tells of the same replicas. Seconds that it took."""
    before = {name: {each.id for each in cluster.until_whole(name, 2)} for name in DEPLOYMENTS}
    victim = _controller(system)
    assert victim is not None
    victim.kill()
    began = time.monotonic()

    def back() -> bool:
        now = _controller(system)
        return now is not None and now.pid != victim.pid and cluster.answers()

    until(back, "another controller")
    took = time.monotonic() - began
    for name in DEPLOYMENTS:
        cluster.until_whole(name, 2)
    assert _ids(cluster) == before, "replicas that lived are to be kept"
    return took


def test_a_controller_that_is_killed(system: RunningSystem, cluster: Cluster) -> None:
    key, record = system.key()
    told: list[Told] = []
    took: list[float] = []
    kills = times(KILLS)
    for _ in range(kills):
        told += under_load(system, [key], lambda: took.append(_kill(system, cluster)))
    victim = cluster.running(MODEL)[0]
    cluster.kill(victim)
    cluster.until_whole(MODEL, 2, without=victim.id)
    failed = [each for each in told if not each.done]
    totals = system.settled(record)
    report(
        1,
        "kill -9 of Serve's controller under load",
        kills=kills,
        requests=len(told),
        failed=len(failed),
        back_after_s_p50=percentile(took, 0.5),
        back_after_s_max=max(took),
        tokens_held=totals.reserved,
        reservations_expired=totals.expired,
    )
    assert [(each.status, each.error, each.cut, len(each.pieces)) for each in failed] == []
    assert (totals.reserved, totals.expired) == (0, 0)
