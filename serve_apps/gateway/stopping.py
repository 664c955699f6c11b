"""The requests that a gateway is answering, and how they end when the system is stopped.

    stop ─► new requests: 503 at once ─► those in flight: `grace_s` to end ─► told that they are broken off

A gateway that is only replaced ends whatever it has begun: nobody stops it so.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from serve_apps.gateway.errors import Unavailable
from serve_apps.gateway.http import Exchange

RETRY_AFTER_S = 5.0
LAST_WORD_S = 5.0
"""How long what was broken off may take to say so to its client, and to settle what it has come to."""


class OpenRequests:
    """Those of one gateway."""

    def __init__(self) -> None:
        self._open: set[Exchange] = set()
        self._none = asyncio.Event()
        self._none.set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, exchange: Exchange) -> None:
        self._open.add(exchange)
        self._none.clear()

    def remove(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        if not self._open:
            self._none.set()

    def refuse_if_stopping(self) -> None:
        """Raises `Unavailable` once the gateway is told to stop."""
        if self._stopping:
            raise _stopped()

    async def stop(self, grace_s: float) -> int:
        """Refuses what comes from here on, and returns once nothing is open. How many it broke off."""
        self._stopping = True
        await self._emptied(grace_s)
        broken_off = list(self._open)
        for exchange in broken_off:
            exchange.break_off(_stopped())
        await self._emptied(LAST_WORD_S)
        return len(broken_off)

    async def _emptied(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()


def _stopped() -> Unavailable:
    return Unavailable("The system is being stopped.", code="stopping", retry_after_s=RETRY_AFTER_S)
