"""Routing in simulated pools of 1 to 1,000 replicas: ours beside round robin and power of two.

    first_p50_s, first_p95_s   from a call's arrival to its first token
    cached_share               of the prompt tokens, found in the cache of the replica that got the call
    in_time_share              of the calls, answered within two seconds (`goodput_per_s` in calls)
    jain                       how equal the tenants' shares of calls in time are
    service_gap                the most that of two tenants that waited at a replica one had been served more
                               there than the other, in tokens of prompts and twice those of outputs
    decision_us                CPU of one choice with its bookkeeping, on this machine

Every repeat is another trace; all arms play the same. All but `decision_us` is decided by the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.cases import Case, CaseArm, CaseSample, Described, Measured, Target, measure_cases
from benchmarks.scenario import Options
from benchmarks.simulate.figures import figures
from benchmarks.simulate.policies import PowerOfTwo, RoundRobin
from benchmarks.simulate.trace import Mix, trace
from benchmarks.simulate.world import MakePolicy, play
from cluster.routing.policy import TokenRouting

ARMS: dict[str, tuple[str, MakePolicy]] = {
    "ours": ("by booked tokens, prefixes and sessions (`cluster/routing`)", TokenRouting),
    "power of two": ("the one of two with fewer calls, Ray Serve's default", PowerOfTwo),
    "round robin": ("one after the other", RoundRobin),
}


OTHERS = ("power of two", "round robin")
BUSY = 16
"""Calls a second from which the last calls, too, must be answered sooner than by others."""


class Size(NamedTuple):
    """A pool and what it is given to do."""

    replicas: int
    calls_per_s: float
    """For each replica."""
    seconds: float
    gateways: int
    repeats: int

    @property
    def name(self) -> str:
        return f"{self.replicas}x{self.calls_per_s:g}"


SIZES = (
    Size(1, 1.2, 300, 1, 5),
    Size(3, 1.4, 300, 1, 5),
    Size(10, 1.0, 200, 2, 5),
    Size(10, 1.6, 200, 2, 5),
    Size(100, 1.4, 60, 4, 3),
    Size(1_000, 1.2, 30, 4, 1),
)
TRIED = (Size(3, 1.4, 30, 1, 1),)
"""With `--fake`: the scenario itself is tried out."""


class SimulateScenario:
    """Implements `CaseScenario`."""

    def __init__(self, options: Options) -> None:
        sizes = TRIED if options.fake else SIZES
        wanted = options.cases or ("",)
        self._cases = [_case(size) for size in sizes if size.name.startswith(wanted)]

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        samples = asyncio.run(measure_cases(self._cases, repeats, progress))
        return [Described.of(case) for case in self._cases], samples


def _case(size: Size) -> Case:
    arms = [
        CaseArm(name, describe, _played(size, make), size.repeats) for name, (describe, make) in ARMS.items()
    ]
    targets = [Target("decision_us", "ours", "<=", 50.0)]
    if size.replicas > 1:
        targets += [Target("first_p50_s", "ours", ">=", 1.2, against) for against in OTHERS]
    if size.calls_per_s * size.replicas >= BUSY:
        targets += [Target("first_p95_s", "ours", ">=", 1.2, against) for against in OTHERS]
    describe = (
        f"{size.replicas:,} replicas, {size.calls_per_s:g} calls a second for each, {size.gateways} gateways"
    )
    return Case(size.name, describe, arms, targets, ("first_p50_s", "first_p95_s", "cached_share"))


def _played(size: Size, make: MakePolicy) -> Callable[[str], Awaitable[Measured]]:
    async def run(name: str) -> Measured:
        seed = int(name.rsplit("-", 1)[1])  # of the repeat: the same for all arms
        mix = Mix(size.calls_per_s * size.replicas, size.seconds, tenants=max(5, 2 * size.replicas))
        calls = trace(mix, seed)
        played = play(calls, make, size.replicas, gateways=size.gateways, seed=seed)
        made = figures(played.done, size.seconds)
        made |= {"service_gap": played.service_gap, "decision_us": 1e6 * played.decision_s}
        return Measured(made)

    return run
