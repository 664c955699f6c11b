"""The results that this process used last, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict

MAX_BYTES = 32 * 2**20
ENTRY_BYTES = 400
"""What an entry takes beside its value, roughly."""

Key = tuple[str, str]
"""Tenant, and digest of the question."""


class Recent:
    """What was used longest ago goes first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: bytes) -> None:
        """In place of what was there. A value that is too large for all the room is not kept."""
        self.drop(key)
        self._values[key] = value
        self._bytes += len(value) + ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= len(oldest) + ENTRY_BYTES

    def drop(self, key: Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= len(value) + ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._values)
