"""How large a batch becomes: learned from how long batches took, and from the time that calls have left.

A batch takes a fixed time and some for each unit of it (a token, an item), so from a size on larger ones save
nothing and only make others wait:

    fixed 4 ms, each 0.2 ms     size    20     100     380
                                time     8 ms   24 ms   80 ms      4 ms are a twentieth of 80 ms: enough

Crankshaw et al., "Clipper" (NSDI 2017), section 4.3: adaptive batching. It adds to the size until batches
take too long; here the line of time over size is drawn, by least squares that forget.
"""

from __future__ import annotations

FIXED_SHARE = 0.05
"""Of a batch's time that its fixed part may be: from there on larger ones save too little."""
GROWTH = 2
"""Times the largest batch of late: none is larger, as the line is not known to go on so far."""
LEAST_SPREAD = 0.01
"""Of the sizes of batches, relative to the mean of their squares, from which the line is drawn."""
FORGET = 0.95
"""Weight of all measured before a batch, beside it."""


class Service:
    """How long the batches of one engine or function take."""

    def __init__(self, least: int, enough: int, most: int) -> None:
        """`least` and `most` bound the size of a batch, whatever was measured. Below `enough` only calls in a
        hurry make it: what is saved is not told from noise there, and more can be lost by it than by waiting
        for a few others.
        """
        self._least, self._enough, self._most = least, enough, most
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._largest = 0.0

    def learn(self, size: int, seconds: float) -> None:
        """A batch of this size took so long."""
        self._n = FORGET * self._n + 1
        self._x = FORGET * self._x + size
        self._y = FORGET * self._y + seconds
        self._xx = FORGET * self._xx + size * size
        self._xy = FORGET * self._xy + size * seconds
        self._largest = max(float(size), FORGET * self._largest)

    @property
    def line(self) -> tuple[float, float]:
        """Seconds of a batch and of a unit, neither below 0; 0 and 0 before anything was learned. Where all
        batches were of one size, the time is taken to be that of their units."""
        if not self._n:
            return 0.0, 0.0
        mean = self._y / self._n
        if self._alike:
            return 0.0, self._y / max(1.0, self._x)
        spread = self._n * self._xx - self._x * self._x
        each = max(0.0, (self._n * self._xy - self._x * self._y) / spread)
        return max(0.0, mean - each * self._x / self._n), each

    def size_within(self, seconds: float) -> int:
        """Of a batch that is large enough to be efficient, and takes no longer than this."""
        if not self._n:
            return self._enough
        fixed, each = self.line
        efficient = in_time = float(self._most)
        if each:
            efficient, in_time = fixed * (1 - FIXED_SHARE) / FIXED_SHARE / each, (seconds - fixed) / each
        if self._alike and self._x <= self._enough * self._n:
            efficient = GROWTH * self._enough  # another size tells what is fixed
        known = GROWTH * max(self._largest, self._enough)
        return int(max(self._least, min(max(efficient, self._enough), in_time, known, self._most)))

    @property
    def _alike(self) -> bool:
        """Whether all batches were of about one size."""
        return self._n * self._xx - self._x * self._x <= LEAST_SPREAD * self._n * self._xx
