"""The policy of pools: a call goes where the work before it and its own work are least.

    prompt of 1,000 tokens        a: 400 waiting, has read 900 of the prompt     400 + 2 · 100 = 600  ◄─
                                  b: nothing to do, has read nothing               0 + 2 · 1,000
                                  c: 2,000 waiting, has read 900               2,000 + 2 · 100

Reason: tokens are what an engine spends its time on, so tokens are what is counted: those that were sent
and not answered yet, and of the call itself those that the replica will not find in its prefix cache. Both
stand in one sum, so calls that begin alike go together until that replica has so much to do that reading the
beginning again elsewhere is faster: the trade between locality and load of Preble (Srivatsa et al., ICLR
2025, section 3.2). The weights were chosen on `benchmarks.simulate`.

Not all replicas are looked at when there are many: those that have read most of the prompt, the home of the
session, and a few at random, of which the best is nearly as good as the best of all (Mitzenmacher, "The Power
of Two Choices in Randomized Load Balancing", 2001). So a decision costs the same for 20 replicas and 1,000.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from cluster.routing.facts import Booking, CallFacts, ReplicaFacts, ReplicaName, Work
from cluster.routing.prefixes import PrefixIndex
from cluster.routing.ring import Ring

ALL = 8
"""Up to so many replicas, all are looked at."""
HOLDERS = 4
"""Of more: so many of those that have read the beginning of the prompt."""
SAMPLED = 2
"""And so many at random."""
RANKED = 3
"""Replicas that are named for one call."""
COMING_WEIGHT = 1.0
"""Of a token that is to come. It takes longer than one that is read, but a call that comes later is read and
answered beside it."""
IDLE_WEIGHT = 2.0
"""Of the tokens that the call itself has to have read, where replicas have nothing to do: they delay it, and
take the place of others in the cache."""
BUSY_TOKENS = 1_500
"""With each so many that a replica has to do on average, reading something twice weighs one more: it delays
those who come after, too."""
FRESH_WEIGHT = 6.0
"""At most."""
HOME_SHARE = 0.25
"""Of a prompt, which the home of its session is thought to have read, sent by another process."""
HOME_TOKENS = 200.0
"""What a session's home may have to do more than others before the session leaves it, at least: prompts that
are too short for the index stay together as well."""
AVOIDED_S = 5.0
"""A replica that failed is chosen last."""
LAST = 1e15
"""Tokens: more than any replica has to do."""
BELIEVED_S = 5.0
"""How long what a replica has said of its tokens is counted with, less and less: else one that was full is
never asked again."""
CALLS_BELIEVED_S = 1.0
"""The same of how many calls it has, which it says with every call."""
TOKENS_PER_BLOCK = 64
"""At least, of what is in an engine's cache: the blocks of the index grow with their distance from the
beginning, and so it rather remembers too much."""
TYPICAL_SHARE = 0.05
"""Of the newest call in the running mean of the work of a call."""


class _Replica:
    """What is known of one."""

    __slots__ = ("avoided_until", "believed_s", "name", "others", "others_until", "work")

    def __init__(self, name: ReplicaName) -> None:
        self.name = name
        self.work = Work()
        self.others = 0.0
        """In tokens read: what other processes have sent, as far as the replica has said so."""
        self.others_until = 0.0
        self.believed_s = BELIEVED_S
        self.avoided_until = 0.0

    def load(self, now: float) -> float:
        """What it has to do, in tokens read."""
        work = self.work
        own = work.waiting + COMING_WEIGHT * work.coming
        left = self.others_until - now
        return own + self.others * left / self.believed_s if left > 0 else own


class TokenRouting:
    """Implements `RoutingPolicy`."""

    def __init__(self, random: Random, index: PrefixIndex | None = None) -> None:
        self._random = random
        self._index = index or PrefixIndex()
        self._ring = Ring()
        self._replicas: dict[ReplicaName, _Replica] = {}
        self._list: list[_Replica] = []
        self._typical = 0.0
        """Tokens read that a call is worth: at times a replica says only how many calls it has."""

    def replicas(self, names: Iterable[ReplicaName]) -> None:
        known = self._replicas
        self._replicas = {name: known.get(name) or _Replica(name) for name in names}
        if self._replicas.keys() == known.keys():
            return
        self._list = list(self._replicas.values())
        self._ring.replace(self._replicas)
        self._index.replicas(list(self._replicas))

    def choose(self, call: CallFacts, now: float) -> list[ReplicaName]:
        if len(self._list) <= 1:
            return [each.name for each in self._list]
        few = len(self._list) <= ALL
        home = self._ring.home(call.session) if call.session else None
        depths = self._index.depths(call.blocks, ALL if few else HOLDERS, self._random.random())
        looked_at = self._list if few else self._some(depths, home)
        loads = [each.load(now) for each in looked_at]
        prompt, ends, per_unit = call.prompt_tokens, call.ends, call.tokens_per_unit
        weight = min(FRESH_WEIGHT, IDLE_WEIGHT + sum(loads) / (len(loads) * BUSY_TOKENS))
        at_home = max(HOME_TOKENS, weight * HOME_SHARE * prompt)
        ranked = []
        for each, load in zip(looked_at, loads, strict=True):
            # The whole prompt costs the same everywhere: only what was read of it makes a difference.
            name, saved = each.name, 0.0
            if depth := depths.get(name):
                saved = weight * min(prompt, ends[depth - 1] * per_unit)
            if name == home and saved < at_home:
                saved = at_home
            cost = load - saved if each.avoided_until <= now else LAST + load
            ranked.append((cost, self._random.random(), name))
        ranked.sort()
        return [name for _, _, name in ranked[:RANKED]]

    def sent(self, call: CallFacts, replica: ReplicaName) -> Booking:
        read = _read(call, self._index.depth(replica, call.blocks))
        self._index.add(replica, call.blocks)
        waiting, coming = max(0.0, call.prompt_tokens - read), float(call.output_tokens)
        worth = waiting + COMING_WEIGHT * coming
        self._typical += (worth - self._typical) * (TYPICAL_SHARE if self._typical else 1.0)
        to = self._replicas.get(replica) or _Replica(replica)
        return Booking(replica, to.work, waiting, coming)

    def failed(self, replica: ReplicaName, now: float) -> None:
        if (known := self._replicas.get(replica)) is not None:
            known.avoided_until = now + AVOIDED_S

    def told(self, replica: ReplicaName, facts: ReplicaFacts, now: float) -> None:
        if (known := self._replicas.get(replica)) is not None:
            work = known.work
            waiting, coming = facts.waiting - work.waiting, facts.coming - work.coming
            _believe(known, waiting + COMING_WEIGHT * coming, now + BELIEVED_S, BELIEVED_S)
            if facts.kept:
                self._index.bound(replica, max(1, facts.kept // TOKENS_PER_BLOCK))

    def told_calls(self, replica: ReplicaName, calls: int, now: float) -> None:
        if (known := self._replicas.get(replica)) is not None:
            _believe(known, self._typical * calls, now + CALLS_BELIEVED_S, CALLS_BELIEVED_S)

    def _some(self, depths: Iterable[ReplicaName], home: ReplicaName | None) -> Iterable[_Replica]:
        """Those of many that are looked at."""
        some = {name: self._replicas[name] for name in depths}
        if home is not None:
            some[home] = self._replicas[home]
        for _ in range(SAMPLED):
            # One that is drawn twice, or is looked at already, only makes the choice a little poorer.
            drawn = self._list[int(self._random.random() * len(self._list))]
            some[drawn.name] = drawn
        return some.values()


def _believe(replica: _Replica, others: float, until: float, believed_s: float) -> None:
    replica.others, replica.others_until, replica.believed_s = max(0.0, others), until, believed_s


def _read(call: CallFacts, depth: int) -> float:
    """Tokens of the prompt in its first blocks."""
    return call.ends[depth - 1] * call.tokens_per_unit if depth else 0.0
