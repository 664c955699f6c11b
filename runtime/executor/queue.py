"""The events of a run on their way to its reader: in order, bounded, slowing the run when nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.events import RunEvent

Watch = Callable[[RunEvent], None]
"""Is told of each event the moment it happens. Neither waits nor raises."""

MAX_WAITING = 256
"""Events that wait before deltas have to."""


class EventQueue:
    """One writer's side (`put`, `put_when_room`, `room`), one reader's side (`take`)."""

    def __init__(self, limit: int = MAX_WAITING, watch: Watch | None = None) -> None:
        self._limit = limit
        self._watch = watch
        self._events: list[RunEvent] = []
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: RunEvent) -> None:
        """Adds an event at once: for those of which a few come at a time."""
        if self._watch is not None:
            self._watch(event)
        self._events.append(event)
        self._readable.set()
        if len(self._events) >= self._limit:
            self._room.clear()

    async def put_when_room(self, event: RunEvent) -> None:
        """Adds an event when fewer than the limit wait: for those of which there may be any number."""
        await self.room()
        self.put(event)

    async def room(self) -> None:
        """Waits until fewer events than the limit wait for the reader."""
        while len(self._events) >= self._limit:
            await self._room.wait()

    def wake(self) -> None:
        """Has the reader look at what else there is."""
        self._readable.set()

    async def take(self) -> list[RunEvent]:
        """All that waits, at least one; or nothing, where it was woken."""
        await self._readable.wait()
        events, self._events = self._events, []
        self._readable.clear()
        self._room.set()
        return events
