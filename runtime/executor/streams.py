"""A list that is read while it is made: one node adds items, any number of others read them all.

    draft  ─ item 0, item 1, … ─►  [0 1 2 3 …]  ◄─ search (at 3), ◄─ check (at 1)

A reader that comes late, or starts over, gets all from the beginning: the items are kept, as they are an
output of the node as well. The maker waits while even the furthest reader is more than `MAX_AHEAD` items
behind. It does not wait for the others: two readers of which one also waits for the other would never end.
(This way some node always goes on: whoever waits for an item stands at the end of its stream, so the maker of
that does not wait for readers; follow the streams up to one that waits for no item.) Nor does it wait where
nobody reads, as when the only reader has had enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

MAX_AHEAD = 16
"""Items that are made and not yet read before the maker waits."""


class Stream:
    """One output of one node that runs."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self.ended = asyncio.Event()
        self._readers: set[Reader] = set()
        self._grown = asyncio.Event()
        self._read = asyncio.Event()
        self.taken = False
        """Whether somebody has read an item, so that none can be taken back."""

    @classmethod
    def of(cls, items: Sequence[Any]) -> Stream:
        """One that is complete."""
        stream = cls()
        stream.finish(items)
        return stream

    async def put(self, item: Any) -> None:
        """Adds an item. Waits while those that read it are behind."""
        self._items.append(item)
        self._grow()
        await asyncio.sleep(0)  # whoever waits for it begins before the next one is made
        while self._readers and len(self._items) - self._furthest() > MAX_AHEAD:
            self._read.clear()
            await self._read.wait()

    def clear(self) -> None:
        """Forgets the items, none of which has been taken: the node starts over."""
        assert not self.taken
        self._items = []

    def finish(self, items: Sequence[Any]) -> None:
        """There will be no more. `items` are all there are, those that were put before first."""
        self._items = list(items)
        self.ended.set()
        self._grow()

    def read(self) -> Reader:
        """A reader from the first item on. Close it where it may not come to the end."""
        return Reader(self)

    async def _item(self, place: int) -> Any:
        """Raises `IndexError` where there are not so many."""
        while place >= len(self._items) and not self.ended.is_set():
            await self._grown.wait()
        item = self._items[place]
        self.taken = True
        return item

    def _furthest(self) -> int:
        return max(reader.place for reader in self._readers)

    def _grow(self) -> None:
        """Wakes all that wait for items, in the order in which they came."""
        self._grown.set()
        self._grown = asyncio.Event()


class Reader:
    """Reads a stream. Several tasks may share it: each item goes to one of them, in their order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.place = 0
        """Of the item that is asked for next."""
        stream._readers.add(self)

    async def numbered(self) -> AsyncGenerator[tuple[int, Any]]:
        """The items that are left, with their places."""
        stream = self._stream
        while True:
            place = self.place
            self.place += 1
            stream._read.set()
            try:
                item = await stream._item(place)
            except IndexError:
                return
            yield place, item

    def close(self) -> None:
        """It reads no more: nobody waits for it."""
        self._stream._readers.discard(self)
        self._stream._read.set()
