"""How work grows with its size. Seconds say nothing on a machine that is slow, or busy; how many times as
much one size takes as another is the same on all of them."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from time import thread_time


def calls_of(work: Callable[[], object]) -> int:
    """Calls of functions that the work makes, of those in C too. What one such call does is not seen: whether
    a name is in a list is no call at all."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


def times_as_long(work: Callable[[int], object], small: int, large: int, tries: int = 3) -> float:
    """How many times as much CPU time the large size takes, by the least of several tries each: whatever else
    the machine does can only add to one. Linear work gives large / small, quadratic work the square of it."""
    least = {small: float("inf"), large: float("inf")}
    for _ in range(tries):
        for size in least:
            began = thread_time()
            work(size)
            least[size] = min(least[size], thread_time() - began)
    return least[large] / least[small]
