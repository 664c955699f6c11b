"""The GPUs of one node, given out whole or in parts.

    (1, 1)   0.6 of one: (0.4, 1)   0.6 of one: (0.4, 0.4)   no third 0.6, though 0.8 are left over

A part is of one GPU: of the fullest that has room for it, as Ray chooses on a node. More than one are whole
ones.
"""

from __future__ import annotations

TOLERANCE = 1e-6
"""In sums of amounts. Ray counts in ten-thousandths."""

Left = tuple[float, ...]
"""What is left of each GPU."""


def untouched(count: float) -> Left:
    """So many GPUs of which nothing is taken."""
    return (1.0,) * int(count)


def taken(left: Left, amount: float) -> Left | None:
    """What is left when `amount` is taken too: below 1 a part of one GPU, else so many whole ones. None where
    there is no room."""
    if not amount:
        return left
    share, count = min(amount, 1.0), max(1, round(amount))
    room = sorted((free, index) for index, free in enumerate(left) if free + TOLERANCE >= share)
    if len(room) < count:
        return None
    after = list(left)
    for free, index in room[:count]:
        after[index] = rest(free, share)
    return tuple(after)


def whole(left: Left) -> int:
    """How many are untouched."""
    return sum(free + TOLERANCE >= 1 for free in left)


def rest(free: float, amount: float) -> float:
    """The difference, without what binary fractions add to it: ten times 0.1 of 1 leave nothing."""
    return round(free - amount, 9)
