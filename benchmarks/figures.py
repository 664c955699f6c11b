"""A quantity over the repeats of a run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One measured quantity over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(median(values), min(values), max(values))


def ranged(figure: Figure) -> str:
    """The median, with the smallest and the largest in brackets."""
    if figure.low == figure.high:
        return short(figure.median)
    return f"{short(figure.median)} ({short(figure.low)} to {short(figure.high)})"


def short(value: float) -> str:
    """Three digits that say something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
