"""Whether what was measured under load is what it has to be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.figures import Figure
from benchmarks.runner import Sample
from benchmarks.scenario import Goal

UNITS = {
    "requests_per_s": "requests/s",
    "cpu_ms_per_request": "CPU ms a request",
    "latency_p50_ms": "median ms",
    "first_byte_p50_ms": "median ms to the first byte",
}
"""What figures are called for people."""


class Reached(msgspec.Struct, frozen=True):
    """What became of a goal."""

    goal: Goal
    value: float | None
    """The one that counts; None where it was not measured."""
    spread: Figure | None
    """Over the repeats."""
    reached: bool


def judged(goals: Sequence[Goal], samples: Sequence[Sample]) -> list[Reached]:
    """Each goal, by the samples of one run."""
    return [_judge(goal, samples) for goal in goals]


def _judge(goal: Goal, samples: Sequence[Sample]) -> Reached:
    own, base = (_by_repeat(goal, arm, samples) for arm in (goal.arm, goal.against))
    match goal.compared:
        case "itself":
            values = list(own.values())
        case "ratio":
            values = [value / base[repeat] for repeat, value in own.items() if base.get(repeat)]
        case "difference":
            values = [value - base[repeat] for repeat, value in own.items() if repeat in base]
    if not values:
        return Reached(goal, None, None, reached=False)
    best = max(values) if goal.sign == ">=" else min(values)
    value = best if goal.compared == "itself" else median(values)
    reached = value >= goal.limit if goal.sign == ">=" else value <= goal.limit
    return Reached(goal, value, Figure.of(values), reached)


def _by_repeat(goal: Goal, arm: str, samples: Sequence[Sample]) -> dict[int, float]:
    return {
        sample.repeat: getattr(sample, goal.figure)
        for sample in samples
        if (sample.load, sample.arm) == (goal.load, arm)
    }


def meaning(goal: Goal) -> str:
    """A goal in words."""
    what = f"{goal.load}: {UNITS.get(goal.figure, goal.figure)} of `{goal.arm}`"
    match goal.compared:
        case "ratio":
            return f"{what} / of `{goal.against}`"
        case "difference":
            return f"{what} - of `{goal.against}`"
    return f"{what}, best repeat"
