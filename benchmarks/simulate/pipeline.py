"""Runs of one graph through pools whose replicas come and go, and a scaler that is asked every second.

    runs ─► runner (a place for the whole run) ─► pool, pool, ... (a place for each call) ─► done

Calls wait before a pool in one line, which is the best that any router could do. A replica that is wanted
takes its time to start, one that is not wanted any more ends what it has.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from random import Random
from typing import NamedTuple, Protocol

from cluster.autoscaling.model import CALLS, ENDED, SECONDS, Seen, begun, running

GRAPH, RUNNER = "graph", "runner"
LOOK_EVERY_S = 1.0


class Stage(NamedTuple):
    """A pool."""

    at_once: int
    seconds: float
    """Mean of a call."""
    starts_s: float
    """That a replica takes to start."""
    most: int
    share: float = 1.0
    """Of the runs, how many come here."""


class Scaler(Protocol):
    """Decides how many replicas pools have."""

    def decide(self, seen: Mapping[str, Seen], now: float) -> Mapping[str, int]: ...


class Ended(NamedTuple):
    """A run that is over."""

    at: float
    """When it came."""
    waited_s: float
    """In all lines together."""


class Outcome(NamedTuple):
    """What came of a trace."""

    runs: list[Ended]
    replica_s: dict[str, float]
    """By pool: seconds of replicas, from the moment they are wanted to their end."""


class _Run:
    """Where a run is."""

    __slots__ = ("at", "begun", "left", "since", "waited")

    def __init__(self, at: float, left: deque[str]) -> None:
        self.at = at
        self.begun = at
        """When it came into the runner."""
        self.left = left
        self.since = at
        """When it came into the line where it waits."""
        self.waited = 0.0


class _Pool:
    """Replicas, those in them, and those in line."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.wanted = self.running = self.busy = self.generation = 0
        self.starting: list[float] = []
        """When those that start are ready."""
        self.line: deque[_Run] = deque()
        self.counters: dict[str, float] = {}
        self.unseen = 0
        """Calls that came while there was no replica to count them."""
        self.replica_s = 0.0

    def seen(self, name: str) -> Seen:
        told = {f"{name}-{self.generation}": dict(self.counters)} if self.running else {}
        return Seen(self.wanted, self.running, float(self.busy + len(self.line)), told)

    def count(self, counter: str, amount: float) -> None:
        self.counters[counter] = self.counters.get(counter, 0.0) + amount

    def come(self) -> None:
        if self.running:
            self.count(CALLS, 1)
        else:
            self.unseen += 1

    def ready(self) -> None:
        """A replica has started. Those that came before the first one are counted by it."""
        if not self.running:
            self.generation += 1
            self.counters = {}
            self.count(CALLS, self.unseen)
            self.unseen = 0
        self.running += 1

    def scale(self, wanted: int, now: float) -> list[float]:
        """When those replicas will be ready that are wanted anew."""
        self.wanted = wanted
        there = self.running + len(self.starting)
        if wanted < there:
            self.starting.sort()
            while self.starting and wanted < self.running + len(self.starting):
                self.starting.pop()
            self.running = min(self.running, wanted)
            return []
        anew = [now + self.stage.starts_s] * (wanted - there)
        self.starting += anew
        return anew

    def present(self) -> int:
        """Replicas that cost something: those that end their last calls, too."""
        return max(self.running, math.ceil(self.busy / self.stage.at_once)) + len(self.starting)


def play(arrivals: Sequence[float], stages: Mapping[str, Stage], scaler: Scaler, seed: int) -> Outcome:
    """The runs of a trace, until the last is over. `stages` are in the order of the path, the runner
    first."""
    return _World(stages, scaler, seed).play(arrivals)


class _World:
    """One trace being played."""

    def __init__(self, stages: Mapping[str, Stage], scaler: Scaler, seed: int) -> None:
        self._pools = {name: _Pool(stage) for name, stage in stages.items()}
        self._scaler = scaler
        self._random = Random(seed)
        self._events: list[tuple[float, int, str, str, _Run | None]] = []
        self._number = count()
        self._ended: list[Ended] = []

    def play(self, arrivals: Sequence[float]) -> Outcome:
        for at in arrivals:
            path = [
                name
                for name, pool in self._pools.items()
                if name != RUNNER and self._random.random() < pool.stage.share
            ]
            self._push(at, "come", RUNNER, _Run(at, deque(path)))
        now = 0.0
        while len(self._ended) < len(arrivals):
            self._look(now)
            while self._events and self._events[0][0] < now + LOOK_EVERY_S:
                at, _, kind, name, run = heapq.heappop(self._events)
                self._happen(at, kind, name, run)
            now += LOOK_EVERY_S
        return Outcome(self._ended, {name: pool.replica_s for name, pool in self._pools.items()})

    def _push(self, at: float, kind: str, name: str, run: _Run | None = None) -> None:
        heapq.heappush(self._events, (at, next(self._number), kind, name, run))

    def _look(self, now: float) -> None:
        decided = self._scaler.decide({name: pool.seen(name) for name, pool in self._pools.items()}, now)
        for name, pool in self._pools.items():
            for ready in pool.scale(decided.get(name, pool.wanted), now):
                self._push(ready, "ready", name)
            pool.replica_s += pool.present() * LOOK_EVERY_S

    def _happen(self, at: float, kind: str, name: str, run: _Run | None) -> None:
        pool = self._pools[name]
        if run is None:
            if at in pool.starting:  # else it was not wanted any more
                pool.starting.remove(at)
                pool.ready()
        elif kind == "come":
            run.since = at
            pool.line.append(run)
            pool.come()
        else:
            self._end_call(pool, name, run, at)
        self._admit(pool, name, at)

    def _end_call(self, pool: _Pool, name: str, run: _Run, at: float) -> None:
        pool.busy -= 1
        pool.count(ENDED, 1)
        if name == RUNNER:
            pool.count(SECONDS, at - run.begun)
            pool.count(running(GRAPH), -1)
            self._ended.append(Ended(run.at, run.waited))
        elif run.left:
            self._push(at, "come", run.left.popleft(), run)
        else:
            self._push(at, "end", RUNNER, run)

    def _admit(self, pool: _Pool, name: str, at: float) -> None:
        while pool.line and pool.busy < pool.running * pool.stage.at_once:
            run = pool.line.popleft()
            pool.busy += 1
            run.waited += at - run.since
            if name == RUNNER:
                run.begun = at
                pool.count(begun(GRAPH), 1)
                pool.count(running(GRAPH), 1)
                self._push(at, "come" if run.left else "end", run.left.popleft() if run.left else RUNNER, run)
                continue
            seconds = self._random.expovariate(1 / pool.stage.seconds)
            pool.count(SECONDS, seconds)
            self._push(at + seconds, "end", name, run)
