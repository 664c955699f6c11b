"""What is left of measured cases: JSON for machines, a table in Markdown and a picture for people.

Figures are medians over the repeats, with the smallest and the largest beside them; a ratio is taken within
each repeat, then its median.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from statistics import median
from typing import TypeVar

import msgspec
from rich.table import Table

from benchmarks.cases import CaseSample, Described, Target, values_of
from benchmarks.figures import Figure, ranged, short
from benchmarks.picture import Bar, Group, bars_svg
from benchmarks.report import Machine, commit_of_tree, now, this_machine, versions

OURS = "ours"
"""Name of the arm that the others are compared with."""


class CaseResult(msgspec.Struct, frozen=True):
    """One arm of one case, over all repeats."""

    case: str
    arm: str
    repeats: int
    figures: dict[str, Figure]


class Verdict(msgspec.Struct, frozen=True):
    """What became of a target."""

    case: str
    target: Target
    value: Figure | None
    """None where one of the arms was not measured."""
    reached: bool


Of = TypeVar("Of", CaseResult, Verdict, CaseSample)


class Taken(msgspec.Struct, frozen=True):
    """When a case was measured, and of what."""

    at: str
    """UTC, ISO 8601."""
    commit: str


class CaseReport(msgspec.Struct, frozen=True):
    """All cases of a scenario, whether one run measured them or several."""

    scenario: str
    at: str
    """When the latest was written: UTC, ISO 8601."""
    commit: str
    fake: bool
    """Whether the engine was a scripted one, so that the figures say nothing of an engine."""
    machine: Machine
    versions: dict[str, str]
    cases: list[Described]
    results: list[CaseResult]
    verdicts: list[Verdict]
    samples: list[CaseSample]
    taken: dict[str, Taken] = {}
    """By name of a case."""


def case_report(
    name: str, cases: Sequence[Described], samples: Sequence[CaseSample], *, fake: bool
) -> CaseReport:
    """Everything a reader needs to judge the figures, or to take them again."""
    at, commit = now(), commit_of_tree()
    return CaseReport(
        scenario=name,
        at=at,
        commit=commit,
        fake=fake,
        machine=this_machine(),
        versions=versions(),
        cases=list(cases),
        results=summarise(samples),
        verdicts=[_verdict(case.name, target, samples) for case in cases for target in case.targets],
        samples=list(samples),
        taken={case.name: Taken(at, commit) for case in cases},
    )


def beside(run: CaseReport, before: CaseReport) -> CaseReport:
    """The report of a run of some cases, with those that it did not measure as they were before."""
    new = {case.name: case for case in run.cases}
    cases = {case.name: new.get(case.name, case) for case in before.cases} | new
    kept = [name for name in cases if name not in new]
    return msgspec.structs.replace(
        run,
        cases=list(cases.values()),
        results=_in_order([*run.results, *_of(before.results, kept)], cases),
        verdicts=_in_order([*run.verdicts, *_of(before.verdicts, kept)], cases),
        samples=_in_order([*run.samples, *_of(before.samples, kept)], cases),
        taken=dict.fromkeys(kept, Taken(before.at, before.commit)) | before.taken | run.taken,
    )


def _of(told: Sequence[Of], cases: Container[str]) -> list[Of]:
    return [each for each in told if each.case in cases]


def _in_order(told: Sequence[Of], cases: Iterable[str]) -> list[Of]:
    place = {name: number for number, name in enumerate(cases)}
    return sorted(told, key=lambda each: place[each.case])


def summarise(samples: Sequence[CaseSample]) -> list[CaseResult]:
    """One result for each pair of case and arm, in the order they were first measured."""
    results = []
    for case, arm in dict.fromkeys((sample.case, sample.arm) for sample in samples):
        own = [sample for sample in samples if (sample.case, sample.arm) == (case, arm)]
        names = [name for name in own[0].figures if all(name in each.figures for each in own)]
        figures = {name: Figure.of([each.figures[name] for each in own]) for name in names}
        results.append(CaseResult(case, arm, len(own), figures))
    return results


def _verdict(case: str, target: Target, samples: Sequence[CaseSample]) -> Verdict:
    own = values_of(samples, case, target.arm, target.figure)
    values = list(own.values())
    if target.against is not None:
        base = values_of(samples, case, target.against, target.figure)
        values = [base[repeat] / value for repeat, value in own.items() if repeat in base and value]
    if not values:
        return Verdict(case, target, None, reached=False)
    return Verdict(case, target, Figure.of(values), target.reached(median(values)))


def case_table(run: CaseReport) -> Table:
    """The report for a terminal."""
    shown = Table(
        title=f"{run.scenario}: medians{' over a fake engine' if run.fake else ''}",
        caption=f"{run.machine.cores} cores, {run.machine.cpu}",
    )
    for heading in ("case", "arm", "n", "figures"):
        shown.add_column(heading, no_wrap=heading != "figures")
    case = ""
    for result in run.results:
        if case and case != result.case:
            shown.add_section()
        figures = "  ".join(f"{name} {short(figure.median)}" for name, figure in result.figures.items())
        shown.add_row("" if case == result.case else result.case, result.arm, str(result.repeats), figures)
        case = result.case
    shown.add_section()
    for verdict in run.verdicts:
        said = "reached" if verdict.reached else "MISSED"
        shown.add_row(verdict.case, verdict.target.arm, "", f"{said}: {said_of(verdict)}")
    return shown


def markdown(run: CaseReport) -> str:
    """The report as a page: what the table in the documentation is generated from."""
    lines = [
        f"# {run.scenario}",
        "",
        f"Measured on {run.machine.cores} cores of {run.machine.cpu}, Python "
        f"{run.machine.python}, " + ", ".join(" ".join(pair) for pair in run.versions.items()) + ".",
        "",
        "Medians over the repeats of a run in which the arms of a case took turns, with the smallest and the "
        f"largest in brackets. Written by `python -m benchmarks {run.scenario}`; do not edit.",
        "",
        f"![{run.scenario}]({run.scenario}.svg)",
        "",
        "| case | figure | must be | is | reached |",
        "| --- | --- | --- | --- | --- |",
    ]
    for verdict in run.verdicts:
        target, value = verdict.target, verdict.value
        is_ = "not measured" if value is None else ranged(value)
        mark = "yes" if verdict.reached else "**no**"
        lines.append(
            f"| {verdict.case} | {_meant(target)} | {target.sign} {target.limit:g} | {is_} | {mark} |"
        )
    for case in run.cases:
        lines += ["", f"## {case.name}", "", case.describe + ".", "", *_case_lines(run, case)]
    return "\n".join(lines) + "\n"


def _case_lines(run: CaseReport, case: Described) -> list[str]:
    results = [result for result in run.results if result.case == case.name]
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    lines = ["| arm | repeats | " + " | ".join(names) + " |", "| --- " * (len(names) + 2) + "|"]
    for result in results:
        cells = [ranged(result.figures[name]) if name in result.figures else "" for name in names]
        lines.append(f"| {result.arm} | {result.repeats} | " + " | ".join(cells) + " |")
    told = "; ".join(f"*{name}*: {describe}" for name, describe in case.arms.items())
    taken = run.taken.get(case.name, Taken(run.at, run.commit))
    return [*lines, "", f"{told}. Measured {taken.at[:16].replace('T', ' ')} UTC, commit {taken.commit}."]


def said_of(verdict: Verdict) -> str:
    """A verdict in words."""
    target = verdict.target
    value = "not measured" if verdict.value is None else short(verdict.value.median)
    return f"{_meant(target)} is {value}, must be {target.sign} {target.limit:g}"


def _meant(target: Target) -> str:
    if target.against is None:
        return f"{target.figure} of {target.arm}"
    return f"{target.figure}, {target.against} / {target.arm}"


def picture(run: CaseReport) -> str:
    """A group of bars for every figure that a case shows."""
    groups = []
    for case in run.cases:
        results = [result for result in run.results if result.case == case.name]
        for name in case.shown:
            bars = [
                Bar(each.arm, each.figures[name].median, short(each.figures[name].median), each.arm == OURS)
                for each in results
                if name in each.figures
            ]
            groups.append(Group(f"{case.name}: {name}", bars))
    return bars_svg(f"{run.scenario}: medians, less is better", groups)
