"""Work of growing size: each sample in a process of its own, arms in turn, a failing process ends the run."""

from __future__ import annotations

import sys

import msgspec
import pytest
from rich.console import Console

from benchmarks import growth
from benchmarks.compile_ours import compile_once
from benchmarks.figures import Figure
from benchmarks.growth import Cost, GrowthArm, GrowthSample, measure_growth
from benchmarks.growth_report import GrowthReport, growth_report, growth_table, summarise
from benchmarks.runner import MeasurementFailed
from benchmarks.scenario import Options
from runtime.compiler.compile import STAGES


def says(text: str) -> list[str]:
    return [sys.executable, "-c", f"print('''{text}''')"]


def costs(seconds: float) -> list[str]:
    return says(msgspec.json.encode(Cost({"all": seconds}, seconds, 1.0)).decode())


class Squares:
    """Our seconds grow with the square of the size, the peer's with the size."""

    arm_names = ("peer", "ours")
    baseline = "peer"
    subject = "ours"
    shapes = ("line", "tree")
    sizes = (10, 100)
    limits = {10: 1.0, 100: 5.0}  # noqa: RUF012

    def __init__(self, options: Options) -> None:
        self.peer = lambda _shape, size: costs(size / 1000)

    def arms(self) -> list[GrowthArm]:
        return [
            GrowthArm("peer", "the peer", self.peer),
            GrowthArm("ours", "ours", lambda _shape, size: costs(size**2 / 1000)),
        ]


def test_arms_take_turns_within_each_size_and_shape():
    seen = []
    arms, samples = measure_growth(Squares(Options()), 2, seen.append)
    assert seen == samples
    assert [arm.name for arm in arms] == ["peer", "ours"]
    assert [(s.repeat, s.shape, s.size, s.arm) for s in samples] == [
        (repeat, shape, size, arm)
        for repeat in (0, 1)
        for shape in ("line", "tree")
        for size in (10, 100)
        for arm in ("peer", "ours")
    ]
    assert samples[1].cost == Cost({"all": 0.1}, 0.1, 1.0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit('no such shape')"], "ended with 1:\nno such shape"),
        (says("nothing"), "did not say what it cost"),
        ([sys.executable, "-c", "input()"], "ended with 1"),
    ],
)
def test_a_process_that_fails_ends_the_run(command, message):
    scenario = Squares(Options())
    scenario.peer = lambda _shape, _size: command
    with pytest.raises(MeasurementFailed, match=f"peer/line/10 .*{message}"):
        measure_growth(scenario, 1, [].append)


def test_a_process_that_hangs_ends_the_run(monkeypatch):
    monkeypatch.setattr(growth, "TIMEOUT_S", 0.2)
    scenario = Squares(Options())
    scenario.peer = lambda _shape, _size: [sys.executable, "-c", "import threading; threading.Event().wait()"]
    with pytest.raises(MeasurementFailed, match=r"peer/line/10 took longer than 0.2 s"):
        measure_growth(scenario, 1, [].append)


def sample(size: int, arm: str, repeat: int, seconds: float) -> GrowthSample:
    return GrowthSample(
        "line", size, arm, repeat, Cost({"a": seconds / 4, "b": seconds * 3 / 4}, seconds, 2.0)
    )


SAMPLES = [
    sample(size, arm, repeat, size**power / 1000 * (1 + repeat))
    for repeat in (0, 1, 2)
    for size in (10, 100)
    for arm, power in (("peer", 1), ("ours", 2))
]


def test_ratios_are_taken_within_a_repeat_and_limits_are_ours():
    small_peer, small, large_peer, large = summarise(SAMPLES, Squares(Options()))
    assert (small.size, small.arm, small.repeats) == (10, "ours", 3)
    assert small.seconds.median == pytest.approx(0.2)
    assert small.stages == pytest.approx({"a": 0.05, "b": 0.15})
    assert small.ratio == Figure(*[pytest.approx(10.0)] * 3)
    assert small.within_limit
    assert not large.within_limit
    assert (small_peer.limit_s, large_peer.limit_s) == (None, None)
    assert large_peer.within_limit


def test_the_report_has_the_exponents_and_can_be_read_back():
    scenario = Squares(Options())
    made = growth_report("squares", scenario, scenario.arms(), SAMPLES)
    assert msgspec.json.decode(msgspec.json.encode(made), type=GrowthReport) == made
    assert made.exponents == {"peer": {"line": 1.0}, "ours": {"line": 2.0}}
    console = Console(width=140)
    with console.capture() as capture:
        console.print(growth_table(made))
    shown = capture.get()
    assert "OVER 5" in shown
    assert "< 1" in shown
    assert "ours: line 2.00" in shown


def test_our_own_work_times_every_stage():
    cost = compile_once("rag", 40)
    assert list(cost.stages) == ["read", *STAGES, "lower"]
    assert all(seconds >= 0 for seconds in cost.stages.values())
    assert 0 < cost.seconds <= cost.wall_s * 1.5 + 0.05
