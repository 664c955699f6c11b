"""The policies that ours is compared with. Both implement `RoutingPolicy`."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from cluster.routing.facts import Booking, CallFacts, ReplicaFacts, ReplicaName, Work


class _Plain:
    """Knows the replicas and the calls that this process has sent to each."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._names: list[ReplicaName] = []
        self._work: dict[ReplicaName, Work] = {}
        self._others: dict[ReplicaName, int] = {}

    def replicas(self, names: Iterable[ReplicaName]) -> None:
        self._names = list(names)
        self._work = {name: self._work.get(name) or Work() for name in self._names}

    def sent(self, call: CallFacts, replica: ReplicaName) -> Booking:
        return Booking(replica, self._work[replica], call.prompt_tokens, call.output_tokens)

    def failed(self, replica: ReplicaName, now: float) -> None:
        """These know of no failures."""

    def told(self, replica: ReplicaName, facts: ReplicaFacts, now: float) -> None:
        """These count calls."""

    def told_calls(self, replica: ReplicaName, calls: int, now: float) -> None:  # noqa: ARG002
        self._others[replica] = calls


class RoundRobin(_Plain):
    """One after the other, from a random first one."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._next = random.randrange(1 << 16)

    def choose(self, call: CallFacts, now: float) -> list[ReplicaName]:  # noqa: ARG002
        self._next += 1
        return [self._names[self._next % len(self._names)]]


class PowerOfTwo(_Plain):
    """The one of two with fewer calls: Ray Serve's default."""

    def choose(self, call: CallFacts, now: float) -> list[ReplicaName]:  # noqa: ARG002
        two = self._random.sample(self._names, min(2, len(self._names)))
        return sorted(two, key=lambda name: self._work[name].calls + self._others.get(name, 0))
