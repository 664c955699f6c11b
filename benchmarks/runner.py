"""Measures a scenario: arms interleaved within each load, repeated, one after the other.

    for repeat: for load: for arm: warm up, measure        (A B C, A B C, ...)

So whatever else the machine does falls on all arms alike, and ratios are taken within a repeat.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import processes
from benchmarks.load import Outcome, Plan
from benchmarks.scenario import Arm, Load, Scenario

ROOT = Path(__file__).parent.parent


class MeasurementFailed(Exception):
    """An arm answered wrongly: its figures would mean nothing, so there are none."""


class Sample(msgspec.Struct, frozen=True):
    """One arm under one load, once."""

    load: str
    arm: str
    repeat: int
    requests: int
    requests_per_s: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    first_byte_p50_ms: float
    cpu_ms_per_request: float
    """CPU of the arm's server processes, user and system, divided by the requests answered."""
    rss_mb: float
    """Of the same processes, after the measurement."""
    client_load: float
    """Cores the load generator kept busy. Near 1, it was the bottleneck and requests/s are its own."""
    cpu_ms_by: dict[str, float] = {}
    """What each kind of process has of `cpu_ms_per_request`."""


class Session(NamedTuple):
    """What came of a run."""

    arms: list[Arm]
    samples: list[Sample]
    failed: dict[str, str]
    """By load and arm of others, as `stream portkey`: why there are no figures."""


class Timing(msgspec.Struct, frozen=True):
    """How long each sample takes, in seconds."""

    warmup_s: float = 1.0
    seconds: float = 3.0


def measure(scenario: Scenario, repeats: int, timing: Timing, progress: Callable[[Sample], None]) -> Session:
    """Start the scenario, measure it, stop it. `progress` sees each sample as it is taken.

    Raises MeasurementFailed at the first answer that is not the expected one. An arm of others has no figures
    then, and the run goes on.
    """
    samples: dict[str, list[Sample]] = {}
    failed: dict[str, str] = {}
    with scenario.started() as arms:
        for repeat in range(repeats):
            for load, arm in _turns(scenario.loads, arms):
                pair = f"{load.name} {arm.name}"
                if pair in failed:
                    continue
                try:
                    sample = _sample(load, arm, repeat, timing)
                except MeasurementFailed as error:
                    if not arm.of_others:
                        raise
                    failed[pair] = str(error)
                    samples.pop(pair, None)
                else:
                    progress(sample)
                    samples.setdefault(pair, []).append(sample)
    taken = sorted((each for several in samples.values() for each in several), key=lambda each: each.repeat)
    return Session(arms, taken, failed)


def _turns(loads: tuple[Load, ...], arms: list[Arm]) -> Iterator[tuple[Load, Arm]]:
    for load in loads:
        for arm in arms:
            if load.name in arm.requests:
                yield load, arm


def _sample(load: Load, arm: Arm, repeat: int, timing: Timing) -> Sample:
    plan = Plan(arm.requests[load.name], load.connections, timing.warmup_s, timing.seconds)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        generator.stdin.write(msgspec.json.encode(plan).decode() + "\n")
        generator.stdin.flush()
        if generator.stdout.readline() != "started\n":
            raise MeasurementFailed(f"the load generator ended before it started on {arm.name}/{load.name}")
        before = processes.read(arm.processes())
        line = generator.stdout.readline()
        after = processes.read(arm.processes())
    if not line:
        raise MeasurementFailed(f"the load generator died on {arm.name}/{load.name}")
    outcome = msgspec.json.decode(line, type=Outcome)
    if outcome.failed or not outcome.completed:
        raise MeasurementFailed(
            f"{arm.name}/{load.name}: {outcome.failed} of {outcome.failed + outcome.completed} requests "
            f"failed, the first with: {outcome.first_failure}"
        )
    return Sample(
        load=load.name,
        arm=arm.name,
        repeat=repeat,
        requests=outcome.completed,
        requests_per_s=outcome.completed / outcome.elapsed_s,
        latency_p50_ms=outcome.latency_ms.p50,
        latency_p95_ms=outcome.latency_ms.p95,
        latency_p99_ms=outcome.latency_ms.p99,
        first_byte_p50_ms=outcome.first_byte_ms.p50,
        cpu_ms_per_request=after.cpu_since(before) * 1e3 / outcome.completed,
        rss_mb=after.rss_mb,
        client_load=outcome.client_cpu_s / outcome.elapsed_s,
        cpu_ms_by={
            name: seconds * 1e3 / outcome.completed for name, seconds in after.cpu_by_name(before).items()
        },
    )
