"""Replicas of a simulated pipeline that come and go: ours beside Ray Serve's own policy.

    missed_share      of the runs, which waited for longer than three seconds in all
    wait_p95_s        for all lines of a run together
    replica_hours     of all pools, from the moment that a replica is wanted

Every repeat is another trace; all arms play the same. Everything is decided by the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from benchmarks.cases import Case, CaseArm, CaseSample, Described, Measured, Target, measure_cases
from benchmarks.scenario import Options
from benchmarks.simulate.figures import nearest
from benchmarks.simulate.pipeline import RUNNER, Scaler, Stage, play
from benchmarks.simulate.scalers import DEFAULTS, QUICK, WAIT_S, Ours, Ray

STAGES = {
    RUNNER: Stage(at_once=128, seconds=0.0, starts_s=5, most=8),
    "embed": Stage(at_once=1, seconds=0.05, starts_s=15, most=16),
    "write": Stage(at_once=8, seconds=4.0, starts_s=60, most=32),
    "judge": Stage(at_once=8, seconds=1.5, starts_s=60, most=32, share=0.7),
}
"""The start of a model with CPU engines as measured in docs/decisions/0018, and of the rest."""

MakeScaler = Callable[[], Scaler]
ARMS: dict[str, tuple[str, MakeScaler]] = {
    "ours": (
        "one decision for the whole path (`cluster/autoscaling`), down after 60 s, to none after 300 s",
        lambda: Ours(STAGES, QUICK),
    ),
    "ray": (
        "Ray Serve's policy for each deployment with the same delays, up at once, told every second",
        lambda: Ray(STAGES, QUICK),
    ),
    "ours, patient": ("the same as the first, down and to none after 600 s", lambda: Ours(STAGES, DEFAULTS)),
    "ray, patient": (
        "Ray Serve's policy with its defaults: down and to none after 600 s, up after 30 s, told every 10 s",
        lambda: Ray(STAGES, DEFAULTS),
    ),
}
Rate = Callable[[float], float]
"""Runs a second at a time."""


def ramp(at: float) -> float:
    return 0.5 + 7.5 * max(0.0, 1 - abs(at - 900) / 900)


def bursts(at: float) -> float:
    return 6.0 if at % 400 >= 300 else 1.0


def idle(at: float) -> float:
    return 4.0 if at % 1200 >= 900 else 0.0


LOADS: dict[str, tuple[str, Rate, float]] = {
    "ramp": ("from 0.5 to 8 runs a second in 15 minutes, and back", ramp, 1800),
    "bursts": ("1 run a second, and 6 for 100 s out of 400", bursts, 2400),
    "idle then burst": ("nothing for 15 minutes, then 4 runs a second for 5, three times", idle, 3600),
}
TARGETS = [
    Target("missed_share", "ours", ">=", 1.0, "ray"),
    Target("replica_hours", "ours", ">=", 1.0, "ray"),
    Target("missed_share", "ours, patient", ">=", 1.0, "ray, patient"),
]


class AutoscalingScenario:
    """Implements `CaseScenario`."""

    def __init__(self, options: Options) -> None:
        wanted = options.cases or ("",)
        self._cases = [
            _case(name, 300.0 if options.fake else None) for name in LOADS if name.startswith(wanted)
        ]

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        samples = asyncio.run(measure_cases(self._cases, repeats, progress))
        return [Described.of(case) for case in self._cases], samples


def _case(name: str, tried_s: float | None) -> Case:
    describe, rate, seconds = LOADS[name]
    length = tried_s or seconds
    arms = [CaseArm(arm, about, _played(rate, length, make)) for arm, (about, make) in ARMS.items()]
    return Case(name, describe, arms, TARGETS, ("missed_share", "wait_p95_s", "replica_hours"))


def arrivals(rate: Rate, seconds: float, seed: int) -> list[float]:
    """A Poisson process of that rate, by thinning (Lewis and Shedler, 1979)."""
    random, most, at, came = Random(seed), max(map(rate, range(int(seconds)))), 0.0, []
    while (at := at + random.expovariate(most)) < seconds:
        if random.random() * most < rate(at):
            came.append(at)
    return came


def _played(rate: Rate, seconds: float, make: MakeScaler) -> Callable[[str], Awaitable[Measured]]:
    async def run(name: str) -> Measured:
        seed = int(name.rsplit("-", 1)[1])  # of the repeat: the same for all arms
        outcome = play(arrivals(rate, seconds, seed), STAGES, make(), seed)
        waits = sorted(run.waited_s for run in outcome.runs)
        return Measured(
            {
                "missed_share": sum(wait > WAIT_S for wait in waits) / len(waits),
                "wait_p95_s": nearest(waits, 0.95),
                "replica_hours": sum(outcome.replica_s.values()) / 3600,
            }
        )

    return run
