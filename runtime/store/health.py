"""Whether the store answers: while it is out nobody who wants something of it waits to find that out.

    answers ──failed──► out: a watch asks, now and then, for all ──answered──► answers

Pure: the time is passed in, in seconds of any clock that does not step.
"""

from __future__ import annotations

import math
from typing import Final

FIRST_WAIT_S: Final = 0.05
"""After a failure, until the watch asks: twice as long each time, up to the longest."""
LONGEST_WAIT_S: Final = 0.5
STEADY_S: Final = 10.0
"""A store that goes out sooner than this after it was back is asked as seldom as before: one that hears the
question and cannot do the work would go out and come back many times a second."""


class Health:
    """Of one store, as one process sees it."""

    __slots__ = ("_back_at", "_wait_s", "out")

    def __init__(self) -> None:
        self.out = False
        """Whether the last that was asked was not answered."""
        self._wait_s = FIRST_WAIT_S
        self._back_at = -math.inf

    def failed(self, now: float) -> bool:
        """Whether that is news."""
        if self.out:
            return False
        self.out = True
        if now - self._back_at > STEADY_S:
            self._wait_s = FIRST_WAIT_S
        return True

    def answered(self, now: float) -> bool:
        """Whether that is news."""
        if not self.out:
            return False
        self.out = False
        self._back_at = now
        return True

    def next_wait(self) -> float:
        """Seconds until the watch asks again."""
        wait_s = self._wait_s
        self._wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return wait_s
