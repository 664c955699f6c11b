"""`python -m benchmarks NAME [--repeats N] [--out FILE]`: measure a scenario, print a table, write JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import cases_report, load_report
from benchmarks.cases import CaseSample, CaseScenario
from benchmarks.cases_report import CaseReport, beside, case_report, case_table
from benchmarks.growth import GrowthSample, GrowthScenario, measure_growth
from benchmarks.growth_report import growth_report, growth_table
from benchmarks.report import report, table
from benchmarks.runner import MeasurementFailed, Sample, Timing, measure
from benchmarks.scenario import Options, Scenario
from benchmarks.scenarios import CASES, GROWTH, SCENARIOS

NAMES = (*SCENARIOS, *GROWTH, *CASES)
RESULTS = Path(__file__).parent / "results"
WARM_UP_S = 0.5
MIN_REPEATS = 5
"""Fewer repeats are for trying a scenario out: nothing is written then, unless --out says where."""


class Finished(NamedTuple):
    """What is left of a scenario."""

    report: msgspec.Struct
    """For machines."""
    table: Table
    """For people."""
    files: Mapping[str, str] = {}
    """More for people, by the ending of the file's name."""


def run(
    name: Annotated[str, typer.Argument(help="one of: " + ", ".join(NAMES))],
    repeats: Annotated[int, typer.Option(min=1, help="rounds over all arms")] = MIN_REPEATS,
    seconds: Annotated[float, typer.Option(min=0.1, help="measured, for each sample under load")] = 3.0,
    arm: Annotated[list[str] | None, typer.Option(help="only this arm; may be given again")] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="deploy config to measure")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="only cases whose name begins so, others keep their results; may be given again"),
    ] = None,
    fake: Annotated[bool, typer.Option("--fake", help="a scripted engine in place of the real one")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file; default benchmarks/results/NAME.json")] = None,
) -> None:
    """Measure scenario NAME with its arms interleaved, and compare them."""
    console = Console()
    if name not in NAMES:
        raise typer.BadParameter(f"no scenario {name!r}; there is: {', '.join(NAMES)}")
    options = Options(_arms(name, arm or []), config, tuple(case or ()), fake)
    try:
        if name in GROWTH:
            finished = _growth(name, GROWTH[name](options), repeats, console)
        elif name in CASES:
            finished = _cases(name, CASES[name](options), repeats, console, options, out or _kept(name))
        else:
            finished = _under_load(name, SCENARIOS[name](options), repeats, seconds, console)
    except MeasurementFailed as error:
        console.print(f"[red]{error}", highlight=False)
        raise typer.Exit(1) from error
    console.print(finished.table)
    if out is None and repeats >= MIN_REPEATS and not fake:
        out = _kept(name)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(finished.report), indent=1) + b"\n")
        for ending, text in finished.files.items():
            out.with_suffix(ending).write_text(text)
        console.print(f"written to {out}", highlight=False)


def _kept(name: str) -> Path:
    """Where the results of a scenario are kept."""
    return RESULTS / f"{name}.json"


def _arms(name: str, wanted: list[str]) -> tuple[str, ...]:
    """Raises `typer.BadParameter` for an arm that the scenario does not have."""
    if not wanted:
        return ()
    kind = SCENARIOS.get(name) or GROWTH.get(name)
    if kind is None:
        raise typer.BadParameter(f"{name} always measures all arms; choose cases with --case")
    unknown = sorted(set(wanted) - set(kind.arm_names))
    if unknown:
        raise typer.BadParameter(f"no arm {unknown[0]!r}; {name} has: {', '.join(kind.arm_names)}")
    return tuple(wanted)


def _cases(
    name: str, scenario: CaseScenario, repeats: int, console: Console, options: Options, before: Path
) -> Finished:
    """Where only some cases were measured, the others are as `before` has them."""

    def progress(sample: CaseSample) -> None:
        figures = ", ".join(f"{figure} {value:.4g}" for figure, value in sample.figures.items())
        console.print(f"{sample.repeat + 1}/{repeats} {sample.case} {sample.arm}: {figures}", highlight=False)

    cases, samples = scenario.measure(repeats, progress)
    finished = measured = case_report(name, cases, samples, fake=options.fake)
    if options.cases and not options.fake and before.exists():
        finished = beside(measured, msgspec.json.decode(before.read_bytes(), type=CaseReport))
    pages = {".md": cases_report.markdown(finished), ".svg": cases_report.picture(finished)}
    return Finished(finished, case_table(measured), pages)


def _under_load(name: str, scenario: Scenario, repeats: int, seconds: float, console: Console) -> Finished:
    timing = Timing(warmup_s=min(WARM_UP_S, seconds), seconds=seconds)

    def progress(sample: Sample) -> None:
        console.print(
            f"{sample.repeat + 1}/{repeats} {sample.load} {sample.arm}: {sample.requests_per_s:,.0f} req/s, "
            f"{sample.cpu_ms_per_request:.3f} CPU ms/req, p50 {sample.latency_p50_ms:.2f} ms",
            highlight=False,
        )

    arms, samples, failed = measure(scenario, repeats=repeats, timing=timing, progress=progress)
    for arm in arms:
        if not arm.requests:
            console.print(f"without {arm.name}: {arm.describe}", highlight=False)
    for pair, why in failed.items():
        console.print(f"without {pair}: {why}", highlight=False)
    finished = report(name, scenario.baseline, timing, arms, samples, scenario.goals, failed, scenario.notes)
    pages = {
        ".md": load_report.markdown(finished, scenario.subjects),
        ".svg": load_report.picture(finished, scenario.subjects),
    }
    return Finished(finished, table(finished), pages)


def _growth(name: str, scenario: GrowthScenario, repeats: int, console: Console) -> Finished:
    def progress(sample: GrowthSample) -> None:
        cost = sample.cost
        console.print(
            f"{sample.repeat + 1}/{repeats} {sample.shape} {sample.size:,} {sample.arm}: "
            f"{cost.seconds:.3f} s of CPU, {cost.wall_s:.3f} s passed, {cost.memory_mb:.0f} MB",
            highlight=False,
        )

    arms, samples = measure_growth(scenario, repeats, progress)
    present = {arm.name for arm in arms}
    for missing in sorted(set(scenario.arm_names) - present):
        console.print(f"without the arm {missing}", highlight=False)
    finished = growth_report(name, scenario, arms, samples)
    return Finished(finished, growth_table(finished))


if __name__ == "__main__":
    typer.run(run)
