"""How much is kept of one run, and what goes first.

Events are thinned as their room fills (`thin`): deltas go at a half, outputs of nodes at three quarters, what
happens inside other nodes at nine tenths, and when it is full only the run itself still speaks.

Checkpoints do not grow with history (`Shelf`). A node that is done supersedes all that is inside it, and a
loop that has kept its state after pass 7 all that passes 0 to 6 have kept (`Checkpoint.supersedes`):

    refine[0].draft  refine[1].draft ... refine[7].draft      what passes have done
    refine[0].draft  refine[1].draft ... refine[7].draft      superseded by `refine`: only forks may want them

What is superseded is kept while there is room: the newest `MAX_SUPERSEDED`, within half of all room. What a
resume needs is never dropped; a run of which that is too much breaks, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from runtime.durability.model import Checkpoint
from runtime.errors import NodeError, TooMuchToKeep
from runtime.events import (
    NodeDelta,
    NodeFinished,
    RunEvent,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
    encode_event,
)

MAX_VALUE_BYTES = 4 * 2**20
"""Packed size of one output."""
MAX_CHECKPOINT_BYTES = 12 * 2**20
"""Of one run, equal large outputs counted once."""
MAX_CHECKPOINTS = 10_000
MAX_SUPERSEDED = 1_000
MAX_EVENT_BYTES = 4 * 2**20
"""Of one run."""
MAX_EVENTS = 10_000

NO_DELTAS, NO_OUTPUTS, NO_INNER, ONLY_RUN = 0.5, 0.75, 0.9, 1.0
"""Shares of the room for events."""

INSIDE = ".[+~"
"""What follows the path of a node in those inside it, and of its bodies, parts and tries."""
_NO_NODE = re.compile(r"[+]|~[0-9]+$")
"""In the paths of parts, and of tries that have begun."""

_OF_RUN = (RunStarted, RunResumed, RunSuspended, RunFinished, RunFailed)


def fullness(events: int, size: int) -> float:
    """The share of the room for events that so many, of so many bytes together, take."""
    return max(events / MAX_EVENTS, size / MAX_EVENT_BYTES)


def thin(event: RunEvent, full: float) -> RunEvent | None:
    """What is kept of an event when the room for events is that full."""
    if full < NO_DELTAS or isinstance(event, _OF_RUN):
        return event
    if isinstance(event, NodeDelta) or full >= ONLY_RUN:
        return None
    if full >= NO_INNER and any(mark in event.node for mark in INSIDE):
        return None
    if full >= NO_OUTPUTS and isinstance(event, NodeFinished):
        return msgspec.structs.replace(event, outputs=msgspec.UNSET)
    return event


def holders(path: str) -> Iterator[str]:
    """The paths that `path` is inside of, the outermost first: `a`, `a[3]` and `a[3].b` of `a[3].b+0`."""
    head, part, _ = path.partition("+")
    for place, mark in enumerate(head):
        if mark in INSIDE:
            yield head[:place]
    if part:
        yield head


class Told:
    """How many events of a run there were, and how many of what size are kept."""

    def __init__(self, number: int = 0, kept: int = 0, size: int = 0) -> None:
        self.number = number
        """Of the last one."""
        self.kept = kept
        self.size = size
        """Bytes."""

    def add(self, events: Iterable[RunEvent]) -> list[tuple[int, bytes]]:
        """The numbers of those that are to be kept, and what is kept of them, packed.

        Raises `TooMuchToKeep`, `NodeError` for outputs that cannot be packed.
        """
        added: list[tuple[int, bytes]] = []
        number, kept, size = self.number, self.kept, self.size
        for event in events:
            number += 1
            thinned = thin(event, fullness(kept, size))
            if thinned is not None:
                packed = _packed(thinned)
                kept, size = kept + 1, size + len(packed)
                added.append((number, packed))
        self.number, self.kept, self.size = number, kept, size
        return added


def _packed(event: RunEvent) -> bytes:
    try:
        packed = encode_event(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NodeError(f"what a {type(event).__name__} tells cannot be kept: {error}") from error
    if len(packed) > MAX_EVENT_BYTES:
        raise TooMuchToKeep(
            f"a {type(event).__name__} of {len(packed) / 2**20:.1f} MiB is larger than the "
            f"{MAX_EVENT_BYTES // 2**20} that are kept of one: hand large values on by reference, or run it "
            "with durability none"
        )
    return packed


class Entry(NamedTuple):
    """A checkpoint, packed, with its large values beside it."""

    checkpoint: Checkpoint
    packed: bytes
    values: Mapping[str, bytes]
    """By digest."""


class Dropped(NamedTuple):
    """What is not kept any more."""

    paths: list[str]
    values: list[str]
    """Digests of large values."""


class Shelf:
    """Which checkpoints are kept of a run, and how large they are; not the checkpoints themselves."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, tuple[str, ...]]] = {}
        """By path: packed size, and digests of large values."""
        self._inside: dict[str, dict[str, None]] = {}
        """By path, what is kept inside it and is not superseded."""
        self._superseded: dict[str, None] = {}
        """Paths, the first superseded first."""
        self._values: dict[str, tuple[int, int]] = {}
        """By digest of a large value: its size, and how many checkpoints have it."""
        self.size = 0
        """Bytes."""

    def __len__(self) -> int:
        return len(self._kept)

    def holds_value(self, digest: str) -> bool:
        return digest in self._values

    def add(self, entries: Sequence[Entry]) -> Dropped:
        """Takes entries in; what is to be dropped for them.

        Raises `TooMuchToKeep`, and has none of them then.
        """
        before = set(self._values)
        for entry in entries:
            self._put(entry)
        for entry in entries:
            self._supersede(entry.checkpoint)
        paths = list(self._prune())
        if self.size > MAX_CHECKPOINT_BYTES or len(self._kept) > MAX_CHECKPOINTS:
            message = (
                f"of a durable run at most {MAX_CHECKPOINTS} outputs of {MAX_CHECKPOINT_BYTES // 2**20} MiB "
                f"together are kept, and this one has {len(self._kept)} of {self.size / 2**20:.1f} MiB: hand "
                "large values on by reference, or run it with durability none"
            )
            for path in {entry.checkpoint.path for entry in entries} & set(self._kept):
                self._remove(path)
            raise TooMuchToKeep(message)
        return Dropped(paths, [digest for digest in before if digest not in self._values])

    def _put(self, entry: Entry) -> None:
        path = entry.checkpoint.path
        if path in self._kept:
            self._remove(path)
        self._kept[path] = len(entry.packed), tuple(entry.values)
        self.size += len(entry.packed)
        for digest, value in entry.values.items():
            size, count = self._values.get(digest, (len(value), 0))
            self._values[digest] = size, count + 1
            self.size += 0 if count else size
        for holder in holders(path):
            self._inside.setdefault(holder, {})[path] = None

    def _supersede(self, checkpoint: Checkpoint) -> None:
        done = () if _NO_NODE.search(checkpoint.path) else (checkpoint.path,)
        for place in (*done, *checkpoint.supersedes):
            inside = list(self._inside.get(place, ()))
            itself = [place] if place in self._kept and place != checkpoint.path else []
            for path in (*inside, *itself):
                self._forget_holders(path)
                self._superseded[path] = None

    def _prune(self) -> Iterator[str]:
        while self._superseded and (
            len(self._superseded) > MAX_SUPERSEDED
            or len(self._kept) > MAX_CHECKPOINTS // 2
            or self.size > MAX_CHECKPOINT_BYTES // 2
        ):
            path = next(iter(self._superseded))
            self._remove(path)
            yield path

    def _remove(self, path: str) -> None:
        size, digests = self._kept.pop(path)
        self.size -= size
        for digest in digests:
            size, count = self._values.pop(digest)
            if count > 1:
                self._values[digest] = size, count - 1
            else:
                self.size -= size
        self._superseded.pop(path, None)
        self._forget_holders(path)

    def _forget_holders(self, path: str) -> None:
        for holder in holders(path):
            inside = self._inside.get(holder, {})
            inside.pop(path, None)
            if not inside:
                self._inside.pop(holder, None)
