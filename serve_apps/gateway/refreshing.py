"""What the store says of things, kept for a moment and asked again before it is old.

    age 0 ──────────── ttl/3 ──────────────── ttl ─────────── ttl + grace
         used at once      used, and read again     waited for     only while the store is out
                           beside the request

So whoever comes at least every two thirds of `ttl_s` never waits for the store, and a change is seen by all
within `ttl_s`, whatever messages are lost: there are none. Reads that are wanted together are made once. The
least recently used is dropped beyond `size`, so what is kept does not grow with what is in the store.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from runtime.store.errors import StoreUnavailable

REFRESH_AT = 1 / 3
"""Of the time that a value is kept: from then on it is read again."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Kept(Generic[Value]):
    __slots__ = ("refresh_at", "until", "value")

    def __init__(self, value: Value, refresh_at: float, until: float) -> None:
        self.value = value
        self.refresh_at = refresh_at
        self.until = until


class Refreshing(Generic[Key, Value]):
    """`read` is given the value known so far, where there is one, and may return it where nothing changed."""

    def __init__(
        self,
        read: Callable[[Key, Value | None], Awaitable[Value]],
        *,
        ttl_s: float,
        size: int,
        grace_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._ttl_s = ttl_s
        self._size = size
        self._grace_s = grace_s
        self._monotonic = monotonic
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()
        self._reads: dict[Key, asyncio.Task[Value]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: Key) -> Value:
        """The value as it was at most `ttl_s` ago. Raises what `read` raises, where it has to wait for it.

        Only `StoreUnavailable` is forgiven, for `grace_s` more.
        """
        now = self._monotonic()
        kept = self._kept.get(key)
        if kept is not None and now < kept.until:
            self._kept.move_to_end(key)
            if now >= kept.refresh_at:
                self._reading(key)
            return kept.value
        try:
            # Shielded: a caller that leaves must not take the others' answer along.
            return await asyncio.shield(self._reading(key))
        except StoreUnavailable:
            if kept is not None and now < kept.until + self._grace_s:
                return kept.value
            raise

    def forget(self, key: Key) -> None:
        """The next `get` reads again, and what is being read now is not kept."""
        self._kept.pop(key, None)
        self._reads.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self._reads.clear()

    def _reading(self, key: Key) -> asyncio.Task[Value]:
        read = self._reads.get(key)
        if read is None:
            read = asyncio.get_running_loop().create_task(self._read_and_keep(key))
            self._reads[key] = read
            read.add_done_callback(lambda done: self._done(key, done))
        return read

    async def _read_and_keep(self, key: Key) -> Value:
        # Aged from before the read, so that a change during it cannot hide for longer.
        asked = self._monotonic()
        known = self._kept.get(key)
        value = await self._read(key, known.value if known is not None else None)
        if self._reads.get(key) is asyncio.current_task():
            self._kept[key] = _Kept(value, asked + self._ttl_s * REFRESH_AT, asked + self._ttl_s)
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return value

    def _done(self, key: Key, read: asyncio.Task[Value]) -> None:
        if self._reads.get(key) is read:
            del self._reads[key]
        if not read.cancelled():
            read.exception()  # heard by those who waited, if any did; else the next one asks again
