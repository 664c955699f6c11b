"""How much counters of many replicas grow: over the last minute, and in the last seconds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping

STEADY_S = 60.0
LATELY = ((3.0, 4.0), (10.0, 2.5))
"""Shorter spans, in seconds, and by how many standard deviations of a Poisson count what came in them must
stand out from the minute to be believed: the shorter, the more."""
_KEPT = 256


class Window:
    """What came in the last minute."""

    def __init__(self) -> None:
        self._seconds = [-math.inf]
        self._sums = [0.0]
        """All that came up to the end of each of these seconds."""
        self._newest = 0.0
        self.last = -math.inf
        """When anything came."""

    def add(self, amount: float, now: float) -> None:
        """`now` never goes back."""
        if not amount:
            return
        self._newest = amount + self.added(now)
        self.last = now
        second = math.floor(now)
        if self._seconds[-1] == second:
            self._sums[-1] += amount
            return
        self._seconds.append(second)
        self._sums.append(self._sums[-1] + amount)
        if len(self._seconds) > _KEPT:
            del self._seconds[: _KEPT // 2], self._sums[: _KEPT // 2]

    def added(self, now: float) -> float:
        """What came at this very moment."""
        return self._newest if self.last == now else 0.0

    def within(self, seconds: float, now: float) -> float:
        """What came in so many seconds, a minute at most."""
        since = bisect_right(self._seconds, now - min(seconds, STEADY_S)) - 1
        return self._sums[-1] - self._sums[max(0, since)]

    def steady(self, now: float) -> float:
        """Mean of the last minute, for a second."""
        return self.within(STEADY_S, now) / STEADY_S

    def rate(self, now: float) -> float:
        """For a second: that of the minute, or of the last seconds where these are above it by more than
        chance."""
        steady = rate = self.steady(now)
        for seconds, surely in LATELY:
            came, expected = self.within(seconds, now), steady * seconds
            if came > max(1.0, expected + surely * math.sqrt(expected)):
                rate = max(rate, came / seconds)
        return rate


class Counters:
    """Sums of the counters of replicas that come, start again and go."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, float]] = {}
        self._windows: dict[str, Window] = {}
        self._begun = False

    def window(self, name: str) -> Window:
        return self._windows.setdefault(name, Window())

    def tell(self, told: Mapping[str, Mapping[str, float]], now: float) -> None:
        """What replicas say now. What those that are there the first time have counted is long past; those
        that come later have counted all of it since they came."""
        for replica, counters in told.items():
            before = self._last.get(replica)
            for name, value in counters.items():
                counted = before.get(name, 0.0) if before is not None else 0.0 if self._begun else value
                self.window(name).add(max(0.0, value - counted), now)
        self._last = dict(told)
        self._begun = True
