"""A run under load as a page and as a picture: what the documentation shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.figures import Figure, ranged, short
from benchmarks.goals import meaning
from benchmarks.picture import Bar, Group, bars_svg
from benchmarks.report import CLIENT_BOUND, Report, Result

SHOWN = "Medians over the repeats, the arms in turns, with the smallest and the largest in brackets."


def markdown(run: Report, subjects: Iterable[str]) -> str:
    """The report as a page; `subjects` are the arms that are ours."""
    ours = set(subjects)
    packages = ", ".join(" ".join(pair) for pair in run.versions.items())
    lines = [
        f"# {run.scenario}",
        "",
        f"Measured on {run.machine.cores} cores of {run.machine.cpu}, {run.machine.memory_gib:g} GiB, Python "
        f"{run.machine.python}, {packages}, {run.at[:16].replace('T', ' ')} UTC, commit {run.commit}.",
        "",
        f"{SHOWN} x is the ratio to `{run.baseline}`, taken within each repeat. Ours are bold. Servers, load "
        "generator and upstream share the cores: trust ratios, and CPU a request before requests a second. "
        f"Written by `python -m benchmarks {run.scenario}`; do not edit.",
        "",
        f"![{run.scenario}]({run.scenario}.svg)",
        "",
        *_goals(run),
    ]
    for load in dict.fromkeys(result.load for result in run.results):
        lines += ["", f"## {load}", "", *_rows([one for one in run.results if one.load == load], ours)]
    lines += ["", "## Arms", "", *(f"- `{name}`: {what}." for name, what in run.arms.items())]
    lines += [f"- {pair}: without figures, for {why}" for pair, why in run.failed.items()]
    lines += [line for note in run.notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def _goals(run: Report) -> list[str]:
    if not run.goals:
        return []
    lines = ["| figure | must be | is | over the repeats | reached |", "| --- | --- | --- | --- | --- |"]
    for each in run.goals:
        value = "not measured" if each.value is None else short(each.value)
        spread = "" if each.spread is None else ranged(each.spread)
        mark = "yes" if each.reached else "**no**"
        goal = each.goal
        lines.append(f"| {meaning(goal)} | {goal.sign} {goal.limit:g} | {value} | {spread} | {mark} |")
    return lines


def _rows(results: list[Result], ours: set[str]) -> list[str]:
    columns = (
        "arm",
        "requests/s",
        "x",
        "CPU ms a request",
        "best",
        "p50 ms",
        "p95 ms",
        "first byte ms",
        "MB",
    )
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for result in results:
        name = f"**{result.arm}**" if result.arm in ours else result.arm
        bound = "\\*" if result.client_load.median > CLIENT_BOUND else ""
        cells = (
            name,
            ranged(result.requests_per_s) + bound,
            _median(result.requests_per_s_ratio),
            ranged(result.cpu_ms_per_request),
            short(result.cpu_ms_per_request.low),
            short(result.latency_p50_ms.median),
            short(result.latency_p95_ms.median),
            short(result.first_byte_p50_ms.median),
            short(result.rss_mb.median),
        )
        lines.append("| " + " | ".join(cells) + " |")
    parts = [
        f"{result.arm}: "
        + ", ".join(
            f"{name} {short(ms)}" for name, ms in sorted(result.cpu_ms_by.items(), key=lambda p: -p[1])
        )
        for result in results
        if result.arm in ours and len(result.cpu_ms_by) > 1
    ]
    if parts:
        lines += ["", "CPU ms of a request by process: " + "; ".join(parts) + "."]
    if any(result.client_load.median > CLIENT_BOUND for result in results):
        lines += ["", "\\* The load generator was the bottleneck."]
    return lines


def _median(figure: Figure | None) -> str:
    return "" if figure is None else short(figure.median)


def picture(run: Report, subjects: Iterable[str]) -> str:
    """CPU of a request under each load, and what a request takes where the load has one connection."""
    ours = set(subjects)
    groups = []
    for load in dict.fromkeys(result.load for result in run.results):
        results = [one for one in run.results if one.load == load]
        groups.append(_group(f"{load}: CPU ms a request", results, ours, lambda one: one.cpu_ms_per_request))
        groups.append(_group(f"{load}: median ms", results, ours, lambda one: one.latency_p50_ms))
    return bars_svg(f"{run.scenario}: medians, less is better", groups)


def _group(title: str, results: list[Result], ours: set[str], of: Callable[[Result], Figure]) -> Group:
    bars = [Bar(one.arm, of(one).median, short(of(one).median), one.arm in ours) for one in results]
    return Group(title, bars)
