"""What a routing policy is told, and what it is asked.

    call ──► CallFacts ────┐
                           ├─► RoutingPolicy.choose ──► replicas, the best first
    replica ─► ReplicaFacts ┘

Policies know no clock, no network and no Ray, so that the router of a pool and the simulator run the same
ones. Times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NewType, Protocol

ReplicaName = NewType("ReplicaName", str)
"""The same in every process that calls the replica."""


class CallFacts(NamedTuple):
    """One call, as far as it matters where it goes."""

    prompt_tokens: int
    output_tokens: int
    """That are likely to come, of all choices."""
    blocks: Sequence[int] = ()
    """Hashes of what the prompt begins with, each over all before it and the tenant: equal ones at the same
    place mean that two prompts of a tenant begin alike up to there."""
    ends: Sequence[int] = ()
    """Where each block ends, counted in whatever the prompt was cut by."""
    tokens_per_unit: float = 1.0
    """Of `ends`."""
    session: str = ""
    """Calls of one session are likely to begin alike. It names the tenant too."""


class ReplicaFacts(NamedTuple):
    """What a replica says of itself, in tokens."""

    waiting: int
    """Of prompts that it has been given and not begun to answer."""
    coming: int
    """Of answers that it has still to write."""
    kept: int = 0
    """That its cache of prefixes holds; 0 where it does not know."""


class Work:
    """What one process has sent to one replica and not got back."""

    __slots__ = ("calls", "coming", "waiting")

    def __init__(self) -> None:
        self.calls = 0
        self.waiting = 0.0
        """Tokens of prompts that the replica has still to read."""
        self.coming = 0.0
        """Tokens of answers that it has still to write."""


class Booking:
    """A call that is with a replica: part of its work until the call ends, however it ends."""

    __slots__ = ("_coming", "_ended", "_waiting", "_work", "calls", "replica")

    def __init__(self, replica: ReplicaName, work: Work, waiting: float, coming: float) -> None:
        self.replica = replica
        self._work = work
        self._waiting = waiting
        self._coming = coming
        self._ended = False
        work.calls += 1
        self.calls = work.calls
        """That this process had there with this one, when it was sent."""
        work.waiting += waiting
        work.coming += coming

    def answering(self) -> None:
        """The replica has read the prompt: the first of the answer is there."""
        self._work.waiting -= self._waiting
        self._waiting = 0.0

    def end(self) -> None:
        """The call is with the replica no more. Ending it again does nothing."""
        if not self._ended:
            self._ended = True
            self.answering()
            self._work.calls -= 1
            self._work.coming -= self._coming


class RoutingPolicy(Protocol):
    """Chooses replicas for the calls of one process."""

    def replicas(self, names: Iterable[ReplicaName]) -> None:
        """These there are now. What was known of those that stay is kept."""
        ...

    def choose(self, call: CallFacts, now: float) -> Sequence[ReplicaName]:
        """Where the call should go: the best first, then those to ask if that one is full. Empty where there
        is no replica."""
        ...

    def sent(self, call: CallFacts, replica: ReplicaName) -> Booking:
        """The call goes there. Whoever sends it ends the booking, whatever becomes of the call."""
        ...

    def failed(self, replica: ReplicaName, now: float) -> None:
        """The replica could not be reached, or died."""
        ...

    def told(self, replica: ReplicaName, facts: ReplicaFacts, now: float) -> None:
        """The replica has said something of itself."""
        ...

    def told_calls(self, replica: ReplicaName, calls: int, now: float) -> None:
        """The replica has said how many calls it has; these are those of other processes."""
        ...
