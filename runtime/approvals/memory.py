"""Approvals within one process, for tests and for runners without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.approvals.model import Answer, Asked, Decision, answer_of, no


class MemoryApprovals:
    """Keeps what waits; whoever holds it decides."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, str, str], Asked] = {}
        """By tenant, run id and path of the node."""
        self._decisions: dict[tuple[str, str, str], asyncio.Future[Decision]] = {}
        self._asked = asyncio.Event()

    async def wait(
        self,
        tenant: str,
        run_id: str,
        asked: Asked,
        told: Callable[[], None],
        stays: Callable[[], bool] = no,
    ) -> Answer:
        place = (tenant, run_id, asked.node)
        there = self.waiting.get(place)
        if there is None or there.asked != asked.asked:
            self.waiting[place] = asked
            self._decisions[place] = asyncio.get_running_loop().create_future()
        self._asked.set()
        told()
        try:
            decision = await asyncio.shield(self._decisions[place])
        except asyncio.CancelledError:
            if not stays():
                del self.waiting[place], self._decisions[place]
            raise
        del self.waiting[place], self._decisions[place]
        return answer_of(asked, decision)

    async def decide(self, tenant: str, run_id: str, node: str, decision: Decision) -> None:
        """Waits until the node asks, and decides."""
        place = (tenant, run_id, node)
        while place not in self.waiting:
            self._asked.clear()
            await self._asked.wait()
        self._decisions[place].set_result(decision)
