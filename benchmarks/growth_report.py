"""What is left of a measurement of growth: one JSON file for machines, one table for people.

The exponent of a shape is the slope of a straight line through the medians, sizes and seconds both on
logarithmic scales (least squares): 1 is linear growth, 2 quadratic. n·log n is about 1.1 here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import linear_regression, median

import msgspec
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.growth import GrowthArm, GrowthSample, GrowthScenario
from benchmarks.report import Machine, commit_of_tree, now, this_machine, versions


class GrowthResult(msgspec.Struct, frozen=True):
    """One arm on one shape at one size, over all repeats."""

    shape: str
    size: int
    arm: str
    repeats: int
    seconds: Figure
    """CPU, over all stages."""
    wall_s: Figure
    memory_mb: Figure
    stages: dict[str, float]
    """Median CPU seconds of each stage."""
    ratio: Figure | None
    """Of the seconds to the baseline's; None where the baseline did not run."""
    limit_s: float | None
    """What the seconds may be."""

    @property
    def within_limit(self) -> bool:
        return self.limit_s is None or self.seconds.median < self.limit_s


class GrowthReport(msgspec.Struct, frozen=True):
    """The whole run."""

    scenario: str
    at: str
    commit: str
    machine: Machine
    versions: dict[str, str]
    baseline: str
    arms: dict[str, str]
    exponents: dict[str, dict[str, float]]
    """By arm and shape."""
    results: list[GrowthResult]
    samples: list[GrowthSample]


def growth_report(
    name: str, scenario: GrowthScenario, arms: list[GrowthArm], samples: list[GrowthSample]
) -> GrowthReport:
    """Everything a reader needs to judge the figures, or to take them again."""
    results = summarise(samples, scenario)
    names = [arm.name for arm in arms]
    return GrowthReport(
        scenario=name,
        at=now(),
        commit=commit_of_tree(),
        machine=this_machine(),
        versions=versions(),
        baseline=scenario.baseline,
        arms={arm.name: arm.describe for arm in arms},
        exponents={arm: exponents([one for one in results if one.arm == arm]) for arm in names},
        results=results,
        samples=samples,
    )


def summarise(samples: list[GrowthSample], scenario: GrowthScenario) -> list[GrowthResult]:
    """One result for each shape, size and arm, in the order they were measured."""
    groups: dict[tuple[str, int, str], list[GrowthSample]] = {}
    for sample in samples:
        groups.setdefault((sample.shape, sample.size, sample.arm), []).append(sample)
    results = []
    for (shape, size, arm), own in groups.items():
        base = {s.repeat: s for s in groups.get((shape, size, scenario.baseline), [])}
        ratios = [s.cost.seconds / base[s.repeat].cost.seconds for s in own if s.repeat in base]
        stages = {stage: median(s.cost.stages[stage] for s in own) for stage in own[0].cost.stages}
        limit = scenario.limits.get(size) if arm == scenario.subject else None
        results.append(
            GrowthResult(
                shape=shape,
                size=size,
                arm=arm,
                repeats=len(own),
                seconds=Figure.of([s.cost.seconds for s in own]),
                wall_s=Figure.of([s.cost.wall_s for s in own]),
                memory_mb=Figure.of([s.cost.memory_mb for s in own]),
                stages=stages,
                ratio=Figure.of(ratios) if ratios else None,
                limit_s=limit,
            )
        )
    return results


def exponents(results: Sequence[GrowthResult]) -> dict[str, float]:
    """By shape, where there are at least two sizes."""
    points: dict[str, list[tuple[float, float]]] = {}
    for one in results:
        points.setdefault(one.shape, []).append((math.log(one.size), math.log(one.seconds.median)))
    return {
        shape: round(linear_regression(*zip(*found, strict=True)).slope, 3)
        for shape, found in points.items()
        if len(found) > 1
    }


def growth_table(run: GrowthReport) -> Table:
    """The report for people: medians, the stages of the work in milliseconds."""
    shown = Table(
        title=f"{run.scenario}: medians of CPU seconds; x is the ratio to {run.baseline}",
        caption=f"{run.machine.cores} cores, {run.machine.cpu}\n{_exponents(run.exponents)}",
    )
    for heading in ("shape", "nodes", "arm"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("s", "limit", "x", "MB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("ms of each stage")
    shape = ""
    for one in run.results:
        if shape and one.shape != shape:
            shown.add_section()
        shape = one.shape
        shown.add_row(
            one.shape,
            f"{one.size:,}",
            one.arm,
            f"{one.seconds.median:.3f}",
            "" if one.limit_s is None else f"{'<' if one.within_limit else 'OVER'} {one.limit_s:g}",
            "" if one.ratio is None else f"{one.ratio.median:.1f}",
            f"{one.memory_mb.median:.0f}",
            " ".join(f"{stage} {seconds * 1e3:.0f}" for stage, seconds in one.stages.items()),
        )
    return shown


def _exponents(by_arm: Mapping[str, Mapping[str, float]]) -> str:
    said = [
        f"{arm}: " + ", ".join(f"{shape} {exponent:.2f}" for shape, exponent in shapes.items())
        for arm, shapes in by_arm.items()
        if shapes
    ]
    return "growth exponents: " + "; ".join(said)
