"""Where a session is at home, with no word between the processes that ask.

    ring   ──b──a───c──b────a──c──►      a session's hash falls somewhere; the next point is its home
               ▲
           hash(session)

Each gateway knows only what it has sent itself. That all of them send a new session to the same replica is
left to consistent hashing (Karger et al., "Consistent Hashing and Random Trees", STOC 1997): a replica that
comes or goes moves the sessions of its own part of the ring only.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect
from collections.abc import Iterable

from cluster.routing.facts import ReplicaName

POINTS = 32
"""Of each replica on the ring: more even shares for more memory. A multiple of eight."""


class Ring:
    """Points of replicas between 0 and 2^64."""

    def __init__(self) -> None:
        self._points = array("Q")
        """Side by side in memory: a thousand replicas have more than stay near the processor."""
        self._owners: list[ReplicaName] = []

    def replace(self, names: Iterable[ReplicaName]) -> None:
        """The ring of these replicas."""
        placed = sorted((point, name) for name in names for point in _points(name))
        self._points = array("Q", [point for point, _ in placed])
        self._owners = [name for _, name in placed]

    def home(self, session: str) -> ReplicaName | None:
        """The same in every process that has the same replicas. None where there is none."""
        if not self._points:
            return None
        digest = hashlib.blake2b(session.encode(), digest_size=8).digest()
        at = bisect(self._points, int.from_bytes(digest, "little"))
        return self._owners[at % len(self._owners)]


def _points(name: str) -> list[int]:
    points: list[int] = []
    for part in range(POINTS // 8):
        points += struct.unpack("<8Q", hashlib.blake2b(f"{name}#{part}".encode()).digest())
    return points
