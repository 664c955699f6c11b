"""Arithmetic of vectors, as functions that pipelines may name."""

from __future__ import annotations

import math

from graphs.functions import function


@function(effects="pure", cheap=True)
def similarity(first: list[float], second: list[float]) -> float:
    """The cosine of the angle between two vectors of one model: 1 for one direction, 0 for a right angle.

    Raises `ValueError` for vectors of different lengths, and for one without a direction.
    """
    if len(first) != len(second):
        raise ValueError(f"vectors of {len(first)} and {len(second)} numbers are not of one model")
    lengths = math.hypot(*first) * math.hypot(*second)
    if lengths == 0:
        raise ValueError("a vector of zeros has no direction")
    return sum(a * b for a, b in zip(first, second, strict=True)) / lengths
