"""Replicas for all pools of an application at once, from what comes into its graphs.

    50 runs/s of `rag`, each visits embed once for 0.02 s, llm twice for 3 s   embed 1, llm 300 calls at once
    one replica of embed does 1 at once, one of llm 64                         embed 3, llm 6, with head-room

A run that begins is load on every pool of its path before its first call gets there, so what is further down
scales with what is further up, and not after it once a queue has built up. How often a run visits a pool is
the plan's estimate at first, and then what was counted (`_Pool.share`); calls from elsewhere are added.

More comes at once, less when less has been enough for a while: what is decided is the most of what was wanted
lately, as in the HorizontalPodAutoscaler of Kubernetes ("stabilization window").
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.autoscaling.budget import within
from cluster.autoscaling.model import (
    CALLS,
    ENDED,
    SECONDS,
    Decision,
    PoolScale,
    Scaling,
    Seen,
    begun,
    running,
)
from cluster.autoscaling.rates import Counters, Window
from cluster.autoscaling.staffing import servers

MOST_BUSY = 0.85
"""Share of what replicas can do that is planned for, however patient the callers are."""
DRAIN_S = 10.0
"""In which what waits is worked off, where a call does not take longer than that by itself."""
TOGETHER_S = 5.0
"""Pools of a path that could go this soon after each other go together."""
LEAST_S = 0.001
"""That a call takes."""
TRUST = 20.0
"""Visits for which the plan's word counts beside what was counted."""
ARRIVED_S = 60.0
"""After which a visit that was foreseen should have come."""
FORGET_S = 600.0
"""After which what was counted counts for e times less."""


class Policy:
    """Decides for one application. It keeps what it has seen, and needs no clock of its own."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._pools = {name: _Pool(pool) for name, pool in scaling.pools.items()}
        self._runs = Counters()
        self._asked = dict.fromkeys(scaling.paths, -math.inf)
        """When a run of each graph last began or went on."""
        self._rates: dict[str, tuple[float, float]] = {}
        """By graph: runs a second now, and in the last minute."""
        self._at: float | None = None

    def decide(self, seen: Mapping[str, Seen], now: float) -> Decision:
        """How many replicas each pool should have that is there. `now` is in seconds, from anywhere."""
        self._learn(seen, now)
        self._rates = {
            graph: (window.rate(now), window.steady(now)) for graph, window in self._windows().items()
        }
        there = [name for name in seen if name in self._pools]
        asleep = self._asleep(there, now)
        wanted: dict[str, int] = {}
        why: dict[str, str] = {}
        for name in there:
            pool = self._pools[name]
            if name in asleep:
                pool.forget()
                wanted[name], why[name] = 0, f"nothing came for {self._scaling.zero_after_s:g} s"
                continue
            count, why[name] = pool.wanted(self._coming(name, now), seen[name], now)
            wanted[name] = pool.held(count, now, self._scaling.down_after_s)
        given = within(wanted, self._scaling.pools, self._scaling.max_per_hour)
        for name, count in given.items():
            if count < wanted[name]:
                why[name] += f"; {count} of these {wanted[name]} within the budget"
        return Decision(given, why)

    def _learn(self, seen: Mapping[str, Seen], now: float) -> None:
        scaling = self._scaling
        passed, self._at = 0.0 if self._at is None else now - self._at, now
        runner = seen.get(scaling.runner)
        if runner is not None:
            self._runs.tell(runner.told, now)
            # What waits for a runner that is not there yet may be of any graph. Of one that there always is
            # it is only asked whether it is ready.
            wakes = scaling.runner in scaling.pools and not scaling.pools[scaling.runner].least
            unknown = wakes and runner.ongoing > 0 and not runner.told
            for graph in self._asked:
                goes_on = any(told.get(running(graph), 0) for told in runner.told.values())
                if unknown or goes_on or self._runs.window(begun(graph)).last == now:
                    self._asked[graph] = now
        for name, pool in self._pools.items():
            if name in seen:
                expected = sum(
                    self._runs.window(begun(graph)).added(now) * self._visits(graph, name)
                    for graph in self._asked
                )
                pool.learn(seen[name], expected, passed, now)

    def _coming(self, name: str, now: float) -> Coming:
        """What the runs that have begun will ask of a pool."""
        lately = steady = 0.0
        for graph, (rate, mean) in self._rates.items():
            visits = self._visits(graph, name)
            lately += rate * visits
            steady += mean * visits
        late = 1 - self._scaling.in_time
        return Coming(lately, steady, self._patience(name, now), late)

    def _windows(self) -> dict[str, Window]:
        return {graph: self._runs.window(begun(graph)) for graph in self._scaling.paths}

    def _visits(self, graph: str, pool: str) -> float:
        return self._scaling.paths[graph].get(pool, 0.0)

    def _patience(self, name: str, now: float) -> float:
        """Seconds that one call may wait here, so that a run does not wait longer than it should in all."""
        calls = [
            sum(visits for pool, visits in path.items() if pool != self._scaling.runner)
            for graph, path in self._scaling.paths.items()
            if name in path and now - self._asked[graph] < self._scaling.zero_after_s
        ]
        return self._scaling.wait_s / max([1.0, *calls])

    def _asleep(self, names: Iterable[str], now: float) -> set[str]:
        """Pools that have nothing to do, and no least."""
        left = {
            name: self._used(name) + self._scaling.zero_after_s - now
            for name in names
            if not self._scaling.pools[name].least
        }
        return {
            name
            for name, seconds in left.items()
            if seconds <= 0 and not any(0 < left.get(mate, 0.0) <= TOGETHER_S for mate in self._mates(name))
        }

    def _used(self, name: str) -> float:
        """When a pool last had anything to do, or could have expected it."""
        asked = (at for graph, at in self._asked.items() if name in self._scaling.paths[graph])
        return max(self._pools[name].used, *asked, -math.inf)

    def _mates(self, name: str) -> set[str]:
        return {mate for path in self._scaling.paths.values() if name in path for mate in path}


class Coming(NamedTuple):
    """What runs are about to ask of one pool."""

    lately: float
    """Visits a second, as the plan foresees them, by the runs that began in the last seconds,"""
    steady: float
    """and in the last minute."""
    patience_s: float
    """That one call may wait here,"""
    late: float
    """but for this share."""


class _Pool:
    """What is known of one pool."""

    def __init__(self, scale: PoolScale) -> None:
        self._scale = scale
        self._counters = Counters()
        self._seconds = max(LEAST_S, scale.seconds)
        """That a call takes."""
        self._counted = self._foreseen = TRUST
        """Visits that there were, and that there should have been."""
        self._due: deque[tuple[float, float]] = deque()
        """Visits that are foreseen and may be on their way, and since when."""
        self._lately: deque[tuple[float, int]] = deque()
        """What was wanted and when, of which no later one is more."""
        self.used = -math.inf
        """When anything was last going on in it."""

    @property
    def share(self) -> float:
        """Of the visits that the plan foresees, how many there are: calls from elsewhere hide those that are
        missing, and none are made up."""
        return min(1.0, self._counted / self._foreseen)

    def learn(self, seen: Seen, expected: float, passed: float, now: float) -> None:
        """`expected`: visits to come from the runs that have begun since, `passed` seconds ago."""
        if not self._lately:
            self._lately.append((now, seen.replicas))
            self.used = now if seen.replicas else -math.inf
        self._counters.tell(seen.told, now)
        kept = math.exp(-passed / FORGET_S)
        self._counted = TRUST + kept * (self._counted - TRUST) + self._counters.window(CALLS).added(now)
        if expected:
            self._due.append((now, expected))
        arrived = 0.0
        while self._due and self._due[0][0] <= now - ARRIVED_S:
            arrived += self._due.popleft()[1]
        self._foreseen = TRUST + kept * (self._foreseen - TRUST) + arrived
        ended = self._counters.window(ENDED).within(math.inf, now)
        if ended:
            self._seconds = max(LEAST_S, self._counters.window(SECONDS).within(math.inf, now) / ended)
        if seen.ongoing > 0:
            self.used = now

    def wanted(self, coming: Coming, seen: Seen, now: float) -> tuple[int, str]:
        """Replicas for what comes and what waits, one at least, and why."""
        scale, seconds, calls = self._scale, self._seconds, self._counters.window(CALLS)
        elsewhere = max(0.0, calls.steady(now) - self.share * coming.steady)
        load = seconds * max(calls.rate(now), self.share * coming.lately + elsewhere)
        waiting = max(0.0, seen.ongoing - seen.running * scale.at_once)
        needed = max(
            servers(load, coming.patience_s / seconds, coming.late),
            load / MOST_BUSY,
            load + waiting * seconds / max(DRAIN_S, seconds),
        )
        count = max(1, scale.least, math.ceil(needed / scale.at_once))
        why = f"{load:.3g} calls at once and {waiting:.3g} that wait, {scale.at_once:g} in a replica"
        return min(scale.most, count), why

    def forget(self) -> None:
        """There is none any more: what was wanted before says nothing of what will be."""
        self._lately.clear()
        self._lately.append((-math.inf, 0))

    def held(self, count: int, now: float, seconds: float) -> int:
        """The most that was wanted in the last so many seconds, now included."""
        while self._lately and self._lately[-1][1] <= count:
            self._lately.pop()
        self._lately.append((now, count))
        while self._lately[0][0] < now - seconds:
            self._lately.popleft()
        return self._lately[0][1]
