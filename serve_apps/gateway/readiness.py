"""What is ready to answer, known without asking at the time of the request.

A watcher asks every pool and the runner again and again: often while one of them does not answer, seldom
otherwise. Requests read the last answer. Before the first answer nothing is ready.

    starting ──answers──► ready ──silent for LOST_AFTER_S──► starting

One silence says little: the part may be busy, or a replica of it is being replaced. Calls that come meanwhile
wait in its queue, which takes less than their clients would wait before they came again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

RUNNER: Final = "runner"
"""Name of the graph runner among the parts, beside `model NAME` for each pool."""

POLL_STARTING_S = 0.5
POLL_READY_S = 5.0
ASK_TIMEOUT_S = 2.0
LOST_AFTER_S = 15.0
"""Silence after which a part that was ready is so no more."""

Ask = Callable[[], Awaitable[bool]]


def model_part(name: str) -> str:
    return f"model {name}"


class Readiness:
    """The last known state of every part that requests wait for. `clock` is in seconds, from anywhere."""

    def __init__(self, parts: Mapping[str, Ask], clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = dict(parts)
        self._clock = clock
        self._answered: dict[str, float] = {}
        """When each part last answered, of those that ever did."""
        self._ready: dict[str, bool] = dict.fromkeys(parts, False)
        self._silent = True

    def ready(self, part: str) -> bool:
        return self._ready.get(part, False)

    def waiting_for(self, parts: list[str]) -> list[str]:
        """Those of the parts that cannot answer now."""
        return [part for part in parts if not self.ready(part)]

    def states(self) -> dict[str, bool]:
        return dict(self._ready)

    @property
    def all_ready(self) -> bool:
        return all(self._ready.values())

    async def refresh(self) -> None:
        """Asks every part once, all at the same time."""
        answers = await asyncio.gather(*(_ask(ask) for ask in self._parts.values()))
        now = self._clock()
        self._answered |= {part: now for part, answer in zip(self._parts, answers, strict=True) if answer}
        self._ready = {part: self._heard_of(part, now) for part in self._parts}
        self._silent = not all(answers)

    def _heard_of(self, part: str, now: float) -> bool:
        answered = self._answered.get(part)
        return answered is not None and now - answered <= LOST_AFTER_S

    async def watch(self) -> None:
        """Refreshes until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_STARTING_S if self._silent else POLL_READY_S)


async def _ask(ask: Ask) -> bool:
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await ask()
    except TimeoutError:
        return False
