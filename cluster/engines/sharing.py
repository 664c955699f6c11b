"""How the time of an engine is shared out among the calls in it.

An engine works on several calls at once. Each is told the part of the time that was its own, so that all
parts together are the time that the engine was busy:

    time     0   1   2   3   4        A came at 0 and left at 3, B came at 1 and left at 4
    A        1   ½   ½
    B            ½   ½   1            A is told 2, B is told 2; the engine was busy for 4

A clock V runs at the rate of one over the calls in the engine, and a call's part is how far V went while it
was there: the virtual time of fair queueing (Demers, Keshav and Shenker, "Analysis and Simulation of a Fair
Queueing Algorithm", SIGCOMM 1989, section 2). A call costs two additions, however many others there are.
"""

from __future__ import annotations


class SharedTime:
    """The clock V of one engine. All times are whole nanoseconds of a clock that never goes back."""

    __slots__ = ("_at", "_busy", "_rest", "_virtual", "running")

    def __init__(self) -> None:
        self.running = 0
        """Calls that have begun and not ended."""
        self._at = 0
        self._busy = 0
        self._virtual = 0
        self._rest = 0
        """What could not be divided among the calls, which is less than one nanosecond for each: it is shared
        out with the time that follows."""

    def begin(self, now: int) -> int:
        """A call comes in. What to give back as its beginning."""
        self._advance(now)
        self.running += 1
        return self._virtual

    def share(self, beginning: int, now: int) -> int:
        """A call's part of the time so far."""
        self._advance(now)
        return self._virtual - beginning

    def end(self, beginning: int, now: int) -> int:
        """A call leaves. Its part of the time in all."""
        share = self.share(beginning, now)
        self.running -= 1
        return share

    def busy(self, now: int) -> int:
        """How long there was any call."""
        self._advance(now)
        return self._busy

    def _advance(self, now: int) -> None:
        if self.running:
            passed = now - self._at
            self._busy += passed
            step, self._rest = divmod(self._rest + passed, self.running)
            self._virtual += step
        self._at = now
