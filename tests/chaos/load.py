"""Callers of every kind, who go on while something is done to the system."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from typing import Final

from tests.chaos.client import CHAT, Told, chat, client, post, stream
from tests.e2e.system import AT_LENGTH, COMMAND, REPOSITORY, RunningSystem

STEPS: Final = "/v1/graphs/steps/runs"
KINDS: Final = 5
CALLERS: Final = 2
"""Of each kind."""
LONG: Final = f"Tell me of lighthouses {AT_LENGTH}."


def under_load(system: RunningSystem, keys: list[str], work: Callable[[], None]) -> list[Told]:
    """What callers of every kind are told while `work` is done, and until it is. They share the keys out."""
    return asyncio.run(_under_load(system, keys, work))


def deploy(system: RunningSystem) -> None:
    """Says `clustergraph deploy` with the system's config as it is now."""
    done = subprocess.run(
        [*COMMAND, "deploy", "--config", str(system.config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


async def _under_load(system: RunningSystem, keys: list[str], work: Callable[[], None]) -> list[Told]:
    told: list[Told] = []
    over = asyncio.Event()

    async def caller(number: int) -> None:
        while not over.is_set():
            told.append(await _call(system, keys[number % len(keys)], number % KINDS))

    callers = [asyncio.create_task(caller(number)) for number in range(KINDS * CALLERS)]
    try:
        await asyncio.to_thread(work)
    finally:
        over.set()
        await asyncio.gather(*callers)
    return told


async def _call(system: RunningSystem, key: str, kind: int) -> Told:
    async with client(system, key) as http:
        match kind:
            case 0:
                return await post(http, CHAT, chat("Why?"))
            case 1:
                return await stream(http, CHAT, chat(LONG, max_tokens=400))
            case 2:
                return await post(http, STEPS, {"inputs": {"subject": "tides"}})
            case 3:
                return await stream(http, STEPS, {"inputs": {"subject": "gulls"}})
            case _:
                kept = {"inputs": {"subject": "fog"}, "durability": "step", "background": True}
                return await stream(http, STEPS, kept)
