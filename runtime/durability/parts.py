"""A large append, cut into parts that a round trip can carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from runtime.events import RunEvent

PART_BYTES = 2**20
"""About the most that one round trip carries; a single larger value goes alone."""
BATCH_BYTES = 256 * 1024
"""About the most that one entry of the stream holds: readers take several at once."""

T = TypeVar("T")

Write = tuple[str, str | int, bytes]
"""What it is ("v" a large value, "c" a checkpoint, "e" events); digest, path or last number; bytes."""

_pack = msgspec.msgpack.Encoder().encode
unpack_batch = msgspec.msgpack.Decoder(list[tuple[int, RunEvent]]).decode
"""Numbers and events, of what `batches` makes."""


def batches(events: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Several packed events to an entry, with the number of the last one."""
    for few in _cut(events, BATCH_BYTES, lambda event: len(event[1])):
        yield few[-1][0], _pack([(number, msgspec.Raw(packed)) for number, packed in few])


def parts(writes: Sequence[Write]) -> list[list[Write]]:
    """At least one, which may be empty."""
    return list(_cut(writes, PART_BYTES, lambda write: len(write[2]))) or [[]]


def _cut(things: Iterable[T], most: int, size_of: Callable[[T], int]) -> Iterator[list[T]]:
    few: list[T] = []
    size = 0
    for thing in things:
        if few and size + size_of(thing) > most:
            yield few
            few, size = [], 0
        few.append(thing)
        size += size_of(thing)
    if few:
        yield few
