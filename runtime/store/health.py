"""Whether the store answers: so that while it is out, a decision need not wait for it to be out again.

    answers ──failed──► out: nobody asks, but one now and then ──answered──► answers

Pure: the time is passed in, in seconds of any clock that does not step.
"""

from __future__ import annotations

from typing import Final

FIRST_WAIT_S: Final = 0.05
"""After a failure, until somebody may ask again: twice as long each time, up to the longest."""
LONGEST_WAIT_S: Final = 0.5


class Health:
    """Of one store, as one process sees it."""

    __slots__ = ("_ask_at", "_wait_s", "out")

    def __init__(self) -> None:
        self.out = False
        """Whether the last that was asked was not answered."""
        self._ask_at = 0.0
        self._wait_s = FIRST_WAIT_S

    def may_ask(self, now: float) -> bool:
        """Whether to ask at all. While the store is out one asks for all, to find out whether it is back."""
        if not self.out:
            return True
        if now < self._ask_at:
            return False
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self._ask_at = now + self._wait_s
        return True

    def failed(self, now: float) -> bool:
        """Whether that is news."""
        if self.out:
            return False
        self.out = True
        self._wait_s = FIRST_WAIT_S
        self._ask_at = now + FIRST_WAIT_S
        return True

    def answered(self) -> bool:
        """Whether that is news."""
        was_out, self.out = self.out, False
        return was_out
