"""How much output a node is likely to get: what engines keep room for, and expect to wait for."""

from __future__ import annotations

import math

from runtime.compiler.estimates import TYPICAL_SHARE

SMOOTHING = 0.2
"""Weight of the newest answer."""


class Likely:
    """Of one node: the part of its bound that its answers use. Estimated first, then measured."""

    def __init__(self) -> None:
        self._share = TYPICAL_SHARE

    def tokens(self, most: int) -> int:
        """Of an answer that has at most so many."""
        return max(1, math.ceil(self._share * most))

    def learn(self, used: float, most: int) -> None:
        """An answer had so many tokens of at most so many."""
        self._share += SMOOTHING * (min(1.0, used / most) - self._share)
