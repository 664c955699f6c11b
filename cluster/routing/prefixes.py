"""What the replicas have read, as far as this process has sent it: an index of the beginnings of prompts.

    "rules … A" ─► 7f 03 91      each hash covers its block, all blocks before it, and the tenant:
    "rules … B" ─► 7f 03 c4      the two begin alike for two blocks, and 03 is with whoever got A

Reason: an engine reads only what its prefix cache does not hold, and it holds what it has read before. It
will not say what; but it reads what it is sent, so the sender knows too, until the engine needs the room. So
each replica's blocks are kept in the order of their last use, as engines keep theirs, and the oldest are
forgotten first (as in Preble: Srivatsa et al., ICLR 2025, section 3.1). An index that is wrong costs time
only: the engine reads what it is sent.

Prompts are cut by characters rather than by tokens, because nobody between the client and the engine has
tokenised them. Blocks grow with their distance from the beginning, so that long prompts have few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from itertools import accumulate

import msgspec

from cluster.messages import Generate, Message
from cluster.routing.facts import ReplicaName

BLOCK_CHARS = (*[256] * 16, *[1_024] * 28, *[4_096] * 32, *[32_768] * 20)
"""Sizes of the blocks, in their order. 256 characters are about 64 tokens, two blocks of an engine. What
comes after 800,000 characters is in no block."""
ENDS = tuple(accumulate(BLOCK_CHARS))
MAX_BLOCKS = 1 << 18
"""In the index, over all replicas: about 50 MB when it is full."""
MIN_BLOCKS = 64
"""Of one replica, however many there are."""


class Cut(msgspec.Struct, frozen=True):
    """A prompt in blocks."""

    blocks: list[int]
    chars: int
    """Of the whole prompt, with what is in no block."""


def cut(call: Generate) -> Cut:
    """The prompt of a call in whole blocks, with the tenant as salt: equal hashes are of one tenant.

    Hashes are Python's own, salted for each process: they mean nothing in another.
    """
    pieces = list(_pieces(call))
    text = "".join(pieces)
    blocks: list[int] = []
    tools = call.sampling.tools
    parent = hash((call.tenant, call.model, msgspec.msgpack.encode(tools) if tools else b""))
    start = 0
    for end in ENDS:
        if end > len(text):
            break
        parent = hash((parent, text[start:end]))
        blocks.append(parent)
        start = end
    return Cut(blocks, len(text))


def _pieces(call: Generate) -> Iterator[str]:
    if call.messages is None:
        yield call.prompt or ""
        return
    for message in call.messages:
        yield f"\0{message.role}\0"
        yield _text(message)


def _text(message: Message) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None and message.tool_calls is None:
        return ""
    return msgspec.json.encode([content, message.tool_calls]).decode()


class PrefixIndex:
    """Which replicas have which blocks."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._holders: dict[int, list[ReplicaName]] = {}
        """By block, in the order in which they got it."""
        self._kept: dict[ReplicaName, OrderedDict[int, None]] = {}
        """By replica, what was used longest ago first."""
        self._room: dict[ReplicaName, int] = {}

    def __len__(self) -> int:
        """Blocks, one that several replicas have counted for each."""
        return sum(map(len, self._kept.values()))

    def replicas(self, names: Sequence[ReplicaName]) -> None:
        """These there are now: what others had is forgotten."""
        for gone in self._kept.keys() - set(names):
            self._forget(gone)
        self._kept = {name: self._kept.get(name, OrderedDict()) for name in names}
        self._room = {name: self._room[name] for name in names if name in self._room}
        for name in names:
            self._shrink(name)

    def bound(self, replica: ReplicaName, blocks: int) -> None:
        """The replica's engine keeps no more than this."""
        if replica in self._kept:
            self._room[replica] = blocks
            self._shrink(replica)

    def add(self, replica: ReplicaName, blocks: Sequence[int]) -> None:
        """A prompt with these blocks is sent there."""
        kept = self._kept.get(replica)
        if kept is None:
            return
        for block in reversed(blocks):  # so that the beginning, which the rest is useless without, is last
            if block in kept:
                kept.move_to_end(block)
            else:
                kept[block] = None
                self._holders.setdefault(block, []).append(replica)
        self._shrink(replica)

    def depth(self, replica: ReplicaName, blocks: Sequence[int]) -> int:
        """How many of the first blocks it has."""
        return _reach(blocks, self._kept.get(replica, ()))

    def depths(self, blocks: Sequence[int], most: int, turn: float = 0.0) -> dict[ReplicaName, int]:
        """At most `most` replicas that have the beginning of a prompt, and how many of its blocks: those that
        have most of them first. `turn`, from 0 to 1, says where to begin among those that have as many."""
        found: dict[ReplicaName, int] = {}
        for depth in range(_reach(blocks, self._holders), 0, -1):
            holders = self._holders[blocks[depth - 1]]
            if len(holders) > len(found):
                first = int(turn * len(holders))
                for at in range(first, first + min(len(holders), most + len(found))):
                    found.setdefault(holders[at % len(holders)], depth)
                    if len(found) == most:
                        return found
        return found

    def _shrink(self, replica: ReplicaName) -> None:
        kept = self._kept[replica]
        share = max(MIN_BLOCKS, self._max_blocks // len(self._kept))
        room = min(share, self._room.get(replica, share))
        while len(kept) > room:
            block, _ = kept.popitem(last=False)
            self._drop(block, replica)

    def _forget(self, replica: ReplicaName) -> None:
        for block in self._kept[replica]:
            self._drop(block, replica)
        del self._kept[replica]

    def _drop(self, block: int, replica: ReplicaName) -> None:
        holders = self._holders[block]
        holders.remove(replica)
        if not holders:
            del self._holders[block]


def _reach(blocks: Sequence[int], known: Container[int]) -> int:
    """How many of the first blocks are known, with few looked up. None is known behind one that is not: the
    hash of a block covers what is before it, and of what was sent the beginning is forgotten last."""
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if blocks[middle] in known:
            low = middle + 1
        else:
            high = middle
    return low
