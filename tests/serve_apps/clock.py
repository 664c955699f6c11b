"""Time as a test wants it."""

from __future__ import annotations

from dataclasses import dataclass

NOW = 1_900_000_000.0
"""Unix seconds, a multiple of 5: the start of a bucket of the quotas."""


@dataclass
class Clock:
    """Stands still unless it is moved."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now
