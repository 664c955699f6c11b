"""What has to come of conditions for a case of a branch to be chosen.

    branch:  a.ok ─► 0      b.ok ─► 1      ─► 2        for 1: a.ok does not hold, and b.ok does

Asked while some of what they look at is still being made: a condition counts only once it can be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runtime.errors import NodeError
from runtime.executor.slots import PENDING, Test, Values
from runtime.executor.streams import Stream


class Premise(NamedTuple):
    """A condition, and what it must come to."""

    looks_at: tuple[int, ...]
    """Slots."""
    holds: Test
    wanted: bool


def may_come(premises: Iterable[Premise], values: Values) -> bool:
    """Whether nothing that is known speaks against them. What cannot be evaluated does."""
    known = (each for each in premises if not any(_is_pending(values[slot]) for slot in each.looks_at))
    try:
        return all(each.holds(values) is each.wanted for each in known)
    except NodeError:
        return False


def _is_pending(value: object) -> bool:
    return value is PENDING or isinstance(value, Stream)
