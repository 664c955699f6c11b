"""Medians over repeats, ratios within a repeat, and a report that can be read back."""

from __future__ import annotations

import msgspec
from rich.console import Console

from benchmarks.figures import Figure
from benchmarks.report import Report, report, summarise, table
from benchmarks.runner import Sample, Timing
from benchmarks.scenario import Arm


def sample(arm: str, repeat: int, rate: float, cpu: float, load: str = "chat", client: float = 0.1) -> Sample:
    return Sample(load, arm, repeat, 100, rate, 1.0, 2.0, 3.0, 0.5, cpu, 50.0, client)


SAMPLES = [
    sample("peer", 0, 100.0, 2.0),
    sample("ours", 0, 80.0, 1.0),
    sample("peer", 1, 200.0, 4.0),
    sample("ours", 1, 180.0, 1.0),
    sample("peer", 2, 50.0, 2.0),
    sample("ours", 2, 50.0, 2.0, client=0.99),
]


def test_ratios_are_taken_within_a_repeat():
    peer, ours = summarise(SAMPLES, "peer")
    assert (ours.load, ours.arm, ours.repeats) == ("chat", "ours", 3)
    assert ours.requests_per_s == Figure(80.0, 50.0, 180.0)
    assert ours.requests_per_s_ratio == Figure(0.9, 0.8, 1.0)
    assert ours.cpu_ratio == Figure(0.5, 0.25, 1.0)
    assert peer.requests_per_s_ratio == Figure(1.0, 1.0, 1.0)


def test_without_the_baseline_there_are_no_ratios():
    (ours,) = summarise([sample("ours", 0, 80.0, 1.0)], "peer")
    assert ours.requests_per_s_ratio is None
    assert ours.cpu_ratio is None


def test_the_report_can_be_read_back_and_says_where_it_was_measured():
    arms = [Arm("peer", "the peer", {}, list), Arm("ours", "our gateway", {}, list)]
    made = report("gateway", "peer", Timing(), arms, SAMPLES)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Report) == made
    assert made.arms == {"peer": "the peer", "ours": "our gateway"}
    assert made.machine.cores >= 1
    assert made.machine.cpu
    assert made.versions["ray"]
    assert made.commit != ""


def test_the_table_shows_every_arm_and_marks_a_limit_of_the_client():
    samples = [sample("ours", 0, 1234.0, 1.0, client=0.99), sample("ours", 0, 9.0, 1.0, load="stream")]
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table(report("gateway", "peer", Timing(), [], samples)))
    shown = capture.get()
    assert "1,234*" in shown
    assert "stream" in shown
    assert "the load generator was the bottleneck" in shown
