"""Cases: arms take turns, their outputs are compared, targets are judged by ratios within a repeat."""

from __future__ import annotations

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from benchmarks.cases import Case, CaseArm, CaseSample, Described, Measured, Target, measure_cases, values_of
from benchmarks.cases_report import (
    CaseReport,
    Taken,
    beside,
    case_report,
    case_table,
    markdown,
    picture,
    said_of,
)
from benchmarks.runner import MeasurementFailed


def arm(
    name: str, outputs: object, latency_s: float, asked: list[str], repeats: int | None = None
) -> CaseArm:
    async def run(tenant: str) -> Measured:
        asked.append(tenant)
        return Measured({"latency_s": latency_s}, outputs)

    return CaseArm(name, f"the arm {name}", run, repeats)


def case(*arms: CaseArm, targets: tuple[Target, ...] = ()) -> Case:
    return Case("C1", "a piece of work", arms, targets)


async def test_arms_take_turns_and_the_first_turns_by_one():
    asked: list[str] = []
    arms = [arm(name, "same", 1.0, asked) for name in "abc"]
    seen: list[CaseSample] = []
    samples = await measure_cases([case(*arms)], 2, seen.append)
    assert [(each.repeat, each.arm) for each in samples] == [
        *((0, name) for name in "abc"),
        *((1, name) for name in "bca"),
    ]
    assert seen == samples
    assert len(set(asked)) == len(asked) == 6


async def test_an_arm_may_have_fewer_repeats():
    arms = [arm("slow", 1, 9.0, [], repeats=1), arm("ours", 1, 1.0, [])]
    samples = await measure_cases([case(*arms)], 3, lambda _: None)
    assert [each.arm for each in samples].count("slow") == 1
    assert values_of(samples, "C1", "ours", "latency_s") == {0: 1.0, 1: 1.0, 2: 1.0}


async def test_arms_that_come_to_different_ends_are_no_measurement():
    arms = [arm("peer", ["one"], 1.0, []), arm("ours", ["two"], 1.0, [])]
    with pytest.raises(MeasurementFailed, match=r"(?s)C1: ours and peer .*\['two'\].*\['one'\]"):
        await measure_cases([case(*arms)], 1, lambda _: None)


def sampled(*latencies: tuple[str, int, float]) -> list[CaseSample]:
    return [CaseSample("C1", name, repeat, {"latency_s": value}) for name, repeat, value in latencies]


TIMES = Target("latency_s", "ours", ">=", 2.0, "peer")
ITSELF = Target("latency_s", "ours", "<=", 1.0)
ABSENT = Target("latency_s", "ours", ">=", 1.0, "nobody")


OLD = Taken("2026-01-01T10:20:30+00:00", "abc")


def named(name: str, latency_s: float) -> list[CaseSample]:
    return [CaseSample(name, "ours", 0, {"latency_s": latency_s})]


def reported() -> CaseReport:
    samples = sampled(
        ("peer", 0, 2.0), ("ours", 0, 1.0), ("peer", 1, 9.0), ("ours", 1, 3.0), ("ours", 2, 0.5)
    )
    arms = (arm("peer", 1, 1.0, []), arm("ours", 1, 1.0, []))
    described = Described.of(case(*arms, targets=(TIMES, ITSELF, ABSENT)))
    return case_report("shapes", [described], samples, fake=False)


def test_a_ratio_is_taken_within_a_repeat():
    times, itself, absent = reported().verdicts
    assert times.value is not None
    assert (times.value.median, times.value.low, times.value.high) == (2.5, 2.0, 3.0)
    assert times.reached
    assert itself.value is not None
    assert itself.value.median == 1.0
    assert itself.reached
    assert absent.value is None
    assert not absent.reached
    assert said_of(times) == "latency_s, peer / ours is 2.5, must be >= 2"


def test_the_report_is_for_machines_and_for_people():
    run = reported()
    assert msgspec.json.decode(msgspec.json.encode(run), type=CaseReport) == run
    console = Console(width=160, record=True, file=StringIO())
    console.print(case_table(run))
    shown = console.export_text()
    assert "reached: latency_s, peer / ours is 2.5" in shown
    assert "MISSED: latency_s, nobody / ours is not measured" in shown
    page = markdown(run)
    assert "| C1 | latency_s, peer / ours | >= 2 | 2.5 (2 to 3) | yes |" in page
    assert "| C1 | latency_s, nobody / ours | >= 1 | not measured | **no** |" in page
    assert "| ours | 3 | 1 (0.5 to 3) |" in page
    drawn = picture(run)
    assert drawn.count("<rect") == 2
    assert "C1: latency_s" in drawn


def test_cases_that_were_not_measured_again_stay_as_they_were():
    arms = (arm("ours", 1, 1.0, []),)
    described = [Described.of(case(*arms, targets=(ITSELF,))._replace(name=name)) for name in ("C1", "C2")]
    first = case_report("shapes", described, named("C1", 0.5) + named("C2", 3.0), fake=False)
    again = case_report("shapes", described[:1], named("C1", 0.75), fake=False)
    untold = msgspec.structs.replace(first, at=OLD.at, commit=OLD.commit, taken={})
    assert beside(again, untold).taken["C2"] == OLD
    run = beside(again, msgspec.structs.replace(first, taken=dict.fromkeys(("C1", "C2"), OLD)))
    assert [each.name for each in run.cases] == ["C1", "C2"]
    assert [(each.case, each.figures["latency_s"].median) for each in run.results] == [
        ("C1", 0.75),
        ("C2", 3.0),
    ]
    assert [(each.case, each.reached) for each in run.verdicts] == [("C1", True), ("C2", False)]
    assert [each.case for each in run.samples] == ["C1", "C2"]
    assert run.taken["C2"] == OLD
    assert run.taken["C1"] == Taken(again.at, again.commit)
    assert "Measured 2026-01-01 10:20 UTC, commit abc." in markdown(run)
