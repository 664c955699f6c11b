"""What is ready to answer, known without asking at the time of the request.

A watcher asks every pool and the runner again and again: often while one of them is starting, seldom
afterwards. Requests read the last answer. Before the first answer nothing is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

RUNNER: Final = "runner"
"""Name of the graph runner among the parts, beside `model NAME` for each pool."""

POLL_STARTING_S = 0.5
POLL_READY_S = 5.0
ASK_TIMEOUT_S = 2.0

Ask = Callable[[], Awaitable[bool]]


def model_part(name: str) -> str:
    return f"model {name}"


class Readiness:
    """The last known state of every part that requests wait for."""

    def __init__(self, parts: Mapping[str, Ask]) -> None:
        self._parts = dict(parts)
        self._ready: dict[str, bool] = dict.fromkeys(parts, False)

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
        self._ready = dict(zip(self._parts, answers, strict=True))

    async def watch(self) -> None:
        """Refreshes until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_READY_S if self.all_ready else POLL_STARTING_S)


async def _ask(ask: Ask) -> bool:
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await ask()
    except TimeoutError:
        return False
