"""Asking a store that is out again and again, with growing pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime.store.errors import StoreUnavailable

FIRST_PAUSE_S = 0.02
MAX_PAUSE_S = 0.5
GROWTH = 1.5

T = TypeVar("T")


class Pauses:
    """Each longer than the one before, up to a bound."""

    def __init__(self) -> None:
        self.seconds = FIRST_PAUSE_S
        """Of the next one."""

    def start_over(self) -> None:
        self.seconds = FIRST_PAUSE_S

    async def take(self) -> None:
        await asyncio.sleep(self.seconds)
        self.seconds = min(MAX_PAUSE_S, GROWTH * self.seconds)


async def patiently(ask: Callable[[], Awaitable[T]], until: float) -> T:
    """What `ask` gives, asked at least once and until it gets through; it may be asked twice for the same.

    `until` is in Unix seconds. Raises `StoreUnavailable` then, and any other `StoreError` at once.
    """
    pauses = Pauses()
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            if time.time() + pauses.seconds > until:
                raise
        await pauses.take()
