"""Cases: one piece of work done in several ways, which all have to come to the same result.

    for repeat: for case: for arm: do the work once, look at what came out        (A B C, A B C, ...)

So whatever else the machine does falls on all arms alike, and ratios are taken within a repeat. The order of
the arms turns by one from repeat to repeat, so that none always comes first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from benchmarks.runner import MeasurementFailed
from benchmarks.scenario import Options


class Measured(msgspec.Struct, frozen=True):
    """What doing the work once took, and what came of it."""

    figures: dict[str, float]
    """By name, the unit at its end, as `latency_s`."""
    outputs: Any = None
    """The same for every arm of the case, or the measurement has failed."""


class CaseArm(NamedTuple):
    """One way to do the work."""

    name: str
    describe: str
    run: Callable[[str], Awaitable[Measured]]
    """Given a name that no other run of any arm was given: what keeps caches apart."""
    repeats: int | None = None
    """Of its own, at most, where one takes long. None: as many as asked for."""


class Target(msgspec.Struct, frozen=True):
    """What a figure of an arm has to reach."""

    figure: str
    arm: str
    sign: Literal[">=", "<="]
    limit: float
    against: str | None = None
    """The arm whose figure is divided by that of `arm`: how many times less `arm` takes. None: the figure
    itself is meant."""

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit


class Case(NamedTuple):
    """A piece of work."""

    name: str
    describe: str
    arms: Sequence[CaseArm]
    targets: Sequence[Target]
    shown: Sequence[str] = ("latency_s",)
    """The figures that the picture shows."""


class Described(msgspec.Struct, frozen=True):
    """A case, for readers of the report."""

    name: str
    describe: str
    arms: dict[str, str]
    targets: tuple[Target, ...]
    shown: tuple[str, ...]

    @classmethod
    def of(cls, case: Case) -> Described:
        arms = {arm.name: arm.describe for arm in case.arms}
        return cls(case.name, case.describe, arms, tuple(case.targets), tuple(case.shown))


class CaseSample(msgspec.Struct, frozen=True):
    """One arm of one case, once."""

    case: str
    arm: str
    repeat: int
    figures: dict[str, float]


class CaseScenario(Protocol):
    """A named set of cases."""

    def __init__(self, options: Options) -> None: ...

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        """Starts what the cases need, measures them and stops it. Raises `MeasurementFailed`."""
        ...


_NOT_A_NAME = re.compile(r"[^A-Za-z0-9]+")


async def measure_cases(
    cases: Sequence[Case], repeats: int, progress: Callable[[CaseSample], None]
) -> list[CaseSample]:
    """`progress` sees each sample as it is taken. Raises `MeasurementFailed` where two arms of a case come to
    different outputs, and what the arms raise."""
    samples = []
    expected: dict[str, tuple[str, Any]] = {}
    for repeat in range(repeats):
        for case, arm in _turns(cases, repeat):
            measured = await arm.run(_NOT_A_NAME.sub("-", f"{case.name}-{arm.name}-{repeat}"))
            first, outputs = expected.setdefault(case.name, (arm.name, measured.outputs))
            if measured.outputs != outputs:
                told = f"{measured.outputs!r:.600}\nis not\n{outputs!r:.600}"
                raise MeasurementFailed(
                    f"{case.name}: {arm.name} and {first} come to different ends:\n{told}"
                )
            sample = CaseSample(case.name, arm.name, repeat, measured.figures)
            progress(sample)
            samples.append(sample)
    return samples


def _turns(cases: Sequence[Case], repeat: int) -> Iterator[tuple[Case, CaseArm]]:
    for case in cases:
        first = repeat % len(case.arms)
        for arm in (*case.arms[first:], *case.arms[:first]):
            if arm.repeats is None or repeat < arm.repeats:
                yield case, arm


def values_of(samples: Sequence[CaseSample], case: str, arm: str, figure: str) -> Mapping[int, float]:
    """A figure by repeat."""
    return {
        sample.repeat: sample.figures[figure]
        for sample in samples
        if (sample.case, sample.arm) == (case, arm) and figure in sample.figures
    }
