"""Measures how the cost of one piece of work grows with its size: no server, no load, one process a sample.

    for repeat: for shape: for size: for arm: a fresh process does the work once and says what it cost

So caches of one sample never serve the next, peaks of memory are of one piece of work, and whatever else the
machine does falls on all arms alike.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.runner import MeasurementFailed
from benchmarks.scenario import Options

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 600


class Cost(msgspec.Struct, frozen=True):
    """What one piece of work took. The process writes it to its standard output as JSON."""

    stages: dict[str, float]
    """By stage, in order: seconds of CPU. The work is one thread that never waits, so on a core of its own
    these are the seconds that pass; on a busy machine they are steadier than those."""
    wall_s: float
    """Seconds that passed, over all stages."""
    memory_mb: float
    """Most memory held at once, in MiB, beyond what the process held before."""

    @property
    def seconds(self) -> float:
        """CPU, over all stages."""
        return sum(self.stages.values())


class GrowthArm(msgspec.Struct, frozen=True):
    """One of the things compared."""

    name: str
    describe: str
    command: Callable[[str, int], list[str]]
    """The process for a shape and a size."""


class GrowthSample(msgspec.Struct, frozen=True):
    """One arm, once."""

    shape: str
    size: int
    arm: str
    repeat: int
    cost: Cost


class GrowthScenario(Protocol):
    """A named comparison of growth."""

    arm_names: tuple[str, ...]
    baseline: str
    """The arm that ratios are taken against."""
    subject: str
    """The arm that the limits are for."""
    shapes: Sequence[str]
    sizes: Sequence[int]
    limits: Mapping[int, float]
    """By size: seconds that a piece of work of the subject may take."""

    def __init__(self, options: Options) -> None: ...

    def arms(self) -> list[GrowthArm]:
        """Those that can run here."""
        ...


def measure_growth(
    scenario: GrowthScenario, repeats: int, progress: Callable[[GrowthSample], None]
) -> tuple[list[GrowthArm], list[GrowthSample]]:
    """`progress` sees each sample as it is taken. Raises `MeasurementFailed` when a process fails."""
    arms = scenario.arms()
    samples = []
    for repeat in range(repeats):
        for shape, size, arm in _turns(scenario, arms):
            sample = GrowthSample(shape, size, arm.name, repeat, _cost(arm, shape, size))
            progress(sample)
            samples.append(sample)
    return arms, samples


def _turns(scenario: GrowthScenario, arms: list[GrowthArm]) -> Iterator[tuple[str, int, GrowthArm]]:
    for shape in scenario.shapes:
        for size in scenario.sizes:
            for arm in arms:
                yield shape, size, arm


def _cost(arm: GrowthArm, shape: str, size: int) -> Cost:
    where = f"{arm.name}/{shape}/{size}"
    try:
        done = subprocess.run(
            arm.command(shape, size), cwd=ROOT, capture_output=True, timeout=TIMEOUT_S, check=True
        )
        return msgspec.json.decode(done.stdout, type=Cost)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace")[-2000:]
        raise MeasurementFailed(f"{where} ended with {error.returncode}:\n{said}") from error
    except subprocess.TimeoutExpired as error:
        raise MeasurementFailed(f"{where} took longer than {TIMEOUT_S} s") from error
    except msgspec.DecodeError as error:
        raise MeasurementFailed(f"{where} did not say what it cost: {error}") from error
