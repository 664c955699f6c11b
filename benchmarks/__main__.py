"""`python -m benchmarks NAME [--repeats N] [--out FILE]`: measure a scenario, print a table, write JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.report import report, table
from benchmarks.runner import MeasurementFailed, Sample, Timing, measure
from benchmarks.scenario import Options
from benchmarks.scenarios import SCENARIOS

RESULTS = Path(__file__).parent / "results"
MIN_REPEATS = 5
"""Fewer repeats are for trying a scenario out: nothing is written then, unless --out says where."""


def run(
    name: Annotated[str, typer.Argument(help="one of: " + ", ".join(SCENARIOS))],
    repeats: Annotated[int, typer.Option(min=1, help="rounds over all arms")] = MIN_REPEATS,
    seconds: Annotated[float, typer.Option(min=0.1, help="measured, for each sample")] = 3.0,
    arm: Annotated[list[str] | None, typer.Option(help="only this arm; may be given again")] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="deploy config to measure")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file; default benchmarks/results/NAME.json")] = None,
) -> None:
    """Measure scenario NAME with its arms interleaved, and compare them."""
    console = Console()
    kind = SCENARIOS.get(name)
    if kind is None:
        raise typer.BadParameter(f"no scenario {name!r}; there is: {', '.join(SCENARIOS)}")
    unknown = sorted(set(arm or ()) - set(kind.arm_names))
    if unknown:
        raise typer.BadParameter(f"no arm {unknown[0]!r}; {name} has: {', '.join(kind.arm_names)}")
    timing = Timing(warmup_s=min(1.0, seconds), seconds=seconds)

    def progress(sample: Sample) -> None:
        console.print(
            f"{sample.repeat + 1}/{repeats} {sample.load} {sample.arm}: {sample.requests_per_s:,.0f} req/s, "
            f"{sample.cpu_ms_per_request:.3f} CPU ms/req, p50 {sample.latency_p50_ms:.2f} ms",
            highlight=False,
        )

    try:
        arms, samples = measure(
            kind(Options(tuple(arm or ()), config)), repeats=repeats, timing=timing, progress=progress
        )
    except MeasurementFailed as error:
        console.print(f"[red]{error}", highlight=False)
        raise typer.Exit(1) from error
    finished = report(name, kind.baseline, timing, arms, samples)
    console.print(table(finished))
    if out is None and repeats >= MIN_REPEATS:
        out = RESULTS / f"{name}.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(finished), indent=1) + b"\n")
        console.print(f"written to {out}", highlight=False)


if __name__ == "__main__":
    typer.run(run)
