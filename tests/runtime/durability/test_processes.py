"""Real processes compete for a run, are killed and stopped, and never write over each other."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

from runtime.durability.model import Numbered
from runtime.durability.stored import StoredJournals
from runtime.errors import RunHeld
from runtime.events import NodeStarted, RunResumed
from runtime.store.client import Store
from tests.runtime.durability.holder import LEASE_S
from tests.runtime.durability.journals import FINISHED, begun, followed


class Holder:
    """One of the processes, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.wrote: list[int] = []
        """Tokens."""
        self.lost: list[int] = []
        self.heard = asyncio.Event()

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            match line.decode().split():
                case ["wrote", token]:
                    self.wrote.append(int(token))
                case ["lost", token]:
                    self.lost.append(int(token))
            self.heard.set()

    async def until(self, condition) -> None:
        while not condition(self):
            self.heard.clear()
            await self.heard.wait()


async def start(url: str, name: str) -> Holder:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.durability.holder", url, name, stdout=subprocess.PIPE
    )
    return Holder(process)


async def first_of(waits) -> None:
    tasks = [asyncio.create_task(each) for each in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def writers(heard: list[Numbered]) -> Iterator[tuple[int, set[tuple[str, str]]]]:
    """By attempt, who wrote in it, and under which token."""
    attempt, who = 1, set()
    for each in heard:
        match each.event:
            case RunResumed(attempt=number):
                yield attempt, who
                attempt, who = number, set()
            case NodeStarted(node=name, kind=token):
                who.add((name, token))
    yield attempt, who


async def test_processes_that_are_killed_and_stopped_never_write_over_each_other(
    valkey_store: Store, valkey_url: str
) -> None:
    journals = StoredJournals(valkey_store, "test", lease_s=LEASE_S)
    first = await begun(journals)
    await first.close()
    holders = {name: await start(valkey_url, name) for name in ("ada", "eve")}
    listening = [asyncio.create_task(holder.listen()) for holder in holders.values()]

    def newest() -> Holder:
        return max(holders.values(), key=lambda holder: max(holder.wrote, default=0))

    try:
        await first_of(each.until(lambda it: it.wrote) for each in holders.values())
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):
            hit = newest()
            (other,) = (holder for holder in holders.values() if holder is not hit)
            token = max(hit.wrote)
            hit.process.send_signal(signal_)
            await other.until(lambda it, token=token: max(it.wrote, default=0) > token)
            if signal_ is signal.SIGSTOP:
                hit.process.send_signal(signal.SIGCONT)
                await hit.until(lambda it, token=token: token in it.lost)
    finally:
        for holder in holders.values():
            if holder.process.returncode is None:
                holder.process.kill()
            await holder.process.wait()
        await asyncio.gather(*listening)

    journal = await taken_at_last(journals)
    await journal.append([RunResumed("run-1", journal.attempt, 0), FINISHED], [])
    heard = await followed(journals)
    numbers = [each.number for each in heard]
    assert numbers == sorted(set(numbers))
    attempts = dict(writers(heard))
    assert len(attempts) >= 5
    for attempt, who in attempts.items():
        assert len(who) <= 1
        assert {token for _, token in who} <= {str(attempt)}
    assert set(holders) == {name for who in attempts.values() for name, _ in who}


async def taken_at_last(journals: StoredJournals):
    while True:
        try:
            return (await journals.take("acme", "run-1")).journal
        except RunHeld:
            await asyncio.sleep(0.05)
