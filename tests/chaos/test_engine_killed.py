"""Row 1 on the real engine: kill -9 of vLLM's engine core, and of the replica that owns it, in mid-stream.

Whoever streams is told, in order. The replica without its engine is found out and replaced; the engine
without its replica is found by the next one that starts, and ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil
import pytest

from cluster.engines.orphans import MARKER
from tests.chaos.client import CHAT, Told, chat, client, post, stream
from tests.chaos.cluster import Cluster, until
from tests.chaos.figures import percentile, report, times
from tests.e2e.system import ON_AND_ON, RunningSystem

KILLS = 3
MODEL = "solo"
DEPLOYMENT = f"model-{MODEL}"
STREAMS = 3
BACK_WITHIN_S = 300.0

pytestmark = pytest.mark.parametrize("system", ["vllm"], indirect=True)


def _engine_of(system: RunningSystem, replica_pid: int) -> list[psutil.Process]:
    """The processes that a replica has started for its engine, the core first."""
    found = []
    for process in system.processes():
        try:
            if process.environ().get(MARKER, "").split()[:1] == [str(replica_pid)]:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    titles = {process.pid: " ".join(process.cmdline()) for process in found}
    return sorted(found, key=lambda process: "EngineCore" not in titles[process.pid])


async def _streams(system: RunningSystem, key: str, kill: Callable[[], None]) -> tuple[list[Told], float]:
    """What streams are told in the midst of which `kill` comes, and when it came."""
    seen = [Told(0.0, prompt=ON_AND_ON) for _ in range(STREAMS)]
    body = chat(ON_AND_ON, max_tokens=1_500, ignore_eos=True) | {"model": MODEL}
    async with client(system, key) as http:
        calls = [asyncio.create_task(stream(http, CHAT, body, told)) for told in seen]
        while not all(told.started or told.ended for told in seen):
            await asyncio.sleep(0.01)
        killed = time.monotonic()
        kill()
        await asyncio.gather(*calls)
    return seen, killed


async def _refused_or_answered(system: RunningSystem, key: str) -> list[Told]:
    """What calls are told until the model answers again."""
    told: list[Told] = []
    end = time.monotonic() + BACK_WITHIN_S
    async with client(system, key) as http:
        while not (told and told[-1].done):
            assert time.monotonic() < end, told[-1]
            told.append(await post(http, CHAT, chat("Why?", max_tokens=4) | {"model": MODEL}))
            await asyncio.sleep(0.5)
    return told


def _survive(system: RunningSystem, cluster: Cluster, *, core: bool, title: str) -> None:
    unclear: list[Told] = []
    statuses: set[int] = set()
    told_after: list[float] = []
    back_after: list[float] = []
    left, kills = 0, times(KILLS)
    for _ in range(kills):
        [replica] = cluster.until_whole(DEPLOYMENT, 1)
        engine = _engine_of(system, replica.pid)
        assert engine
        victim = engine[0] if core else psutil.Process(replica.pid)
        key, record = system.key()
        broken, killed = asyncio.run(_streams(system, key, victim.kill))
        unclear += [told for told in broken if told.error is None or told.cut]
        told_after += [told.ended - killed for told in broken]
        meanwhile = asyncio.run(_refused_or_answered(system, key))
        back_after.append(time.monotonic() - killed)
        statuses |= {told.status for told in meanwhile}
        cluster.until_whole(DEPLOYMENT, 1, without=replica.id)
        until(lambda engine=engine: not any(map(_alive, engine)), "the old engine's processes to be gone")
        left += sum(map(_alive, engine))
        totals = system.settled(record)
        assert (totals.reserved, totals.expired) == (0, 0)
    report(
        1,
        title,
        kills=kills,
        streams=kills * STREAMS,
        ends_unclear=len(unclear),
        error_after_s_p50=percentile(told_after, 0.5),
        error_after_s_max=max(told_after),
        back_after_s_p50=percentile(back_after, 0.5),
        engine_processes_left=left,
    )
    assert [(told.status, told.error, told.cut, told.done) for told in unclear] == []
    assert statuses <= {200, 503}


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_engine_core_that_is_killed(system: RunningSystem, cluster: Cluster) -> None:
    _survive(system, cluster, core=True, title="kill -9 of a real engine's core in mid-stream")


def test_a_replica_that_is_killed_leaves_no_engine(system: RunningSystem, cluster: Cluster) -> None:
    _survive(system, cluster, core=False, title="kill -9 of the replica of a real engine in mid-stream")
