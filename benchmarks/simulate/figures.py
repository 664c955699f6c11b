"""What a played trace comes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.simulate.replica import Done

FIRST_WITHIN_S = 2.0
"""The objective: a call that has its first token later is of no use to whoever waits."""


def figures(done: Sequence[Done], seconds: float) -> dict[str, float]:
    """Shares are from 0 to 1. `seconds`: in which calls came. At least one call must be done."""
    waits = sorted(each.first_at - each.call.at for each in done)
    in_time: dict[str, list[bool]] = defaultdict(list)
    for each in done:
        in_time[each.call.tenant].append(each.first_at - each.call.at <= FIRST_WITHIN_S)
    good = sum(map(sum, in_time.values()))
    return {
        "cached_share": sum(each.cached_tokens for each in done) / sum(d.call.prompt_tokens for d in done),
        "first_p50_s": nearest(waits, 0.5),
        "first_p95_s": nearest(waits, 0.95),
        "in_time_share": good / len(done),
        "goodput_per_s": good / seconds,
        "jain": jain(sum(each) / len(each) for each in in_time.values()),
    }


def nearest(ordered: Sequence[float], share: float) -> float:
    """The value that so many of the ordered ones are not above (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def jain(values: Iterable[float]) -> float:
    """1 where all are equal, 1/n where one of n has everything (Jain, Chiu and Hawe, DEC-TR-301, 1984)."""
    kept = list(values)
    squares = sum(value * value for value in kept)
    return sum(kept) ** 2 / (len(kept) * squares) if squares else 1.0
