"""Runners killed in the middle of a run, in processes of their own: others go on, and do nothing again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path

from msgspec.structs import replace

from runtime.durability.stored import StoredJournals
from runtime.events import NodeFinished, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.durability.host import STEPS, TENANT, Told, request_of, the_plan
from tests.runtime.parts import events_of

KILLS = int(os.environ.get("KILLED_RUNNERS", "4"))
"""Runners that are killed in all, beside the one of the agent."""
KILLS_OF_A_RUN = 5
LEASE_S = 1.5
ROOT = Path(__file__).parents[3]


@contextmanager
def host(url: str, calls: Path, *run_id: str) -> Iterator[subprocess.Popen[str]]:
    """A process that attends, ready; killed at the end if it was not before."""
    command = [sys.executable, "-m", "tests.runtime.durability.host", url, str(calls), str(LEASE_S), *run_id]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


def calls_of(calls: Path, *but: int) -> list[str]:
    """Paths of the nodes that called a model, in order, without the calls of these processes."""
    lines = [line.split(" ") for line in calls.read_text().splitlines()]
    return [each.partition(".")[2].partition("+")[0] for pid, each in lines if int(pid) not in but]


async def wait_for(journals: StoredJournals, run_id: str, path: str) -> None:
    """Until something is kept."""
    while path not in (await journals.read(TENANT, run_id)).done:
        await asyncio.sleep(0.01)


async def told(journals: StoredJournals, run_id: str) -> list:
    async with aclosing(journals.follow(TENANT, run_id)) as batches:
        return [event async for batch in batches for _, event in batch]


async def alone(tmp_path: Path) -> RunFinished:
    runner = Runner([the_plan()], Resources({"m": Told(tmp_path / "alone")}))
    last = (await events_of(runner, replace(request_of("alone"), durability="none")))[-1]
    assert isinstance(last, RunFinished)
    return last


async def test_no_reply_of_an_agent_is_asked_for_again(valkey_url, valkey_store, tmp_path):
    journals, calls = StoredJournals(valkey_store, "test"), tmp_path / "calls"
    with host(valkey_url, calls, "run-1") as first, host(valkey_url, calls):
        await wait_for(journals, "run-1", "plan+3")
        kill(first)
        kept = (await journals.read(TENANT, "run-1")).done
        last = (await told(journals, "run-1"))[-1]
    replies = [path for path in kept if path.startswith("plan+") and path[5:].isdigit()]
    assert len(replies) >= 4
    assert calls_of(calls, first.pid).count("plan") == STEPS - len(replies)
    assert last == replace(await alone(tmp_path), seconds=last.seconds)


async def kill_at(journals: StoredJournals, url: str, calls: Path, run_id: str, most: int) -> int:
    """Has a run driven by one process after the other, each killed when something more is done, and the last
    to its end. How many were killed. None did what was done when the one before it was killed."""
    killed: list[tuple[int, set[str]]] = []
    with ExitStack() as hosts:
        driving = hosts.enter_context(host(url, calls, run_id))
        so_far = 0
        while len(killed) < most:
            following = hosts.enter_context(host(url, calls))
            while (kept := await journals.read(TENANT, run_id)).state == "running" and len(
                kept.done
            ) <= so_far:
                await asyncio.sleep(0.01)
            if kept.state != "running":
                break
            kill(driving)
            done = (await journals.read(TENANT, run_id)).done
            killed.append((driving.pid, {path for path in done if "+" not in path}))
            so_far, driving = len(done), following
        await told(journals, run_id)
    for index, (_, done_then) in enumerate(killed):
        dead = [pid for pid, _ in killed[: index + 1]]
        assert done_then.isdisjoint(calls_of(calls, *dead))
    return len(killed)


async def test_runs_outlive_the_runners_that_are_killed_at_them(valkey_url, valkey_store, tmp_path):
    journals, expected = StoredJournals(valkey_store, "test"), await alone(tmp_path)
    left, number = KILLS, 0
    while left > 0:
        run_id, number = f"run-{number}", number + 1
        left -= await kill_at(journals, valkey_url, tmp_path / run_id, run_id, min(left, KILLS_OF_A_RUN))
        events = await told(journals, run_id)
        assert isinstance(events[-1], RunFinished)
        assert (events[-1].outputs, events[-1].usage) == (expected.outputs, expected.usage)
        nodes = [event.node for event in events if isinstance(event, NodeFinished) and event.node[0] == "n"]
        assert sorted(nodes) == sorted(set(nodes))
