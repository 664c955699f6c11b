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
from runtime.events import NodeFinished, RunFinished, RunStarted
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.durability.host import STEPS, TENANT, Told, request_of, the_plan
from tests.runtime.parts import events_of

KILLS = int(os.environ.get("KILLED_RUNNERS", "4"))
"""Runners that are killed in all, beside the one of the agent."""
KILLS_OF_A_RUN = 4
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


async def kill_at(
    journals: StoredJournals, calls: Path, run_id: str, hosts: list[subprocess.Popen[str]]
) -> None:
    """Has a run driven to its end by these processes. Whichever called a model last is killed when something
    more is done, until one is left. Nobody does what was done by then."""
    asked, plan, so_far = request_of(run_id), the_plan(), 0
    journal = await journals.begin(asked, plan)
    await journal.append([RunStarted(run_id, plan.graph, plan.version, plan.hash)], [])
    await journal.close()
    living = {process.pid: process for process in hosts}
    at_deaths: list[tuple[set[str], int]] = []
    while len(living) > 1:
        kept = await journals.read(TENANT, run_id)
        lines = calls.read_text().splitlines() if calls.exists() else []
        if kept.state != "running":
            break
        if not lines or len(kept.done) <= so_far or int(lines[-1].split(" ")[0]) not in living:
            await asyncio.sleep(0.01)
            continue
        kill(living.pop(int(lines[-1].split(" ")[0])))
        done = (await journals.read(TENANT, run_id)).done
        so_far = len(done)
        at_deaths.append(({path for path in done if "+" not in path}, len(calls_of(calls))))
    await told(journals, run_id)
    assert at_deaths
    for done_then, called_then in at_deaths:
        assert done_then.isdisjoint(calls_of(calls)[called_then:])


async def test_runs_outlive_the_runners_that_are_killed_at_them(valkey_url, valkey_store, tmp_path):
    journals, expected = StoredJournals(valkey_store, "test"), await alone(tmp_path)
    for first in range(0, KILLS, KILLS_OF_A_RUN):
        run_id, calls = f"run-{first}", tmp_path / f"calls-{first}"
        with ExitStack() as stack:
            count = min(KILLS_OF_A_RUN, KILLS - first) + 1
            hosts = [stack.enter_context(host(valkey_url, calls)) for _ in range(count)]
            await kill_at(journals, calls, run_id, hosts)
        events = await told(journals, run_id)
        assert isinstance(events[-1], RunFinished)
        assert (events[-1].outputs, events[-1].usage) == (expected.outputs, expected.usage)
        nodes = [event.node for event in events if isinstance(event, NodeFinished) and event.node[0] == "n"]
        assert sorted(nodes) == sorted(set(nodes))
