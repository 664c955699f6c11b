"""The runner interleaves arms, and refuses to report an arm that answers wrongly."""

from __future__ import annotations

from contextlib import contextmanager

import psutil
import pytest

from benchmarks.runner import MeasurementFailed, Timing, measure
from benchmarks.scenario import Arm, HttpRequest, Load, Options

FAST = Timing(warmup_s=0.02, seconds=0.1)


class TwoArms:
    """Both arms are the mock upstream; the second takes only one of the loads."""

    loads = (Load("one", 1), Load("two", 2))
    arm_names = ("a", "b")
    baseline = "a"
    port = 0
    must_contain = "word19"

    def __init__(self, options: Options) -> None:
        self.stopped = False

    @contextmanager
    def started(self):
        request = HttpRequest("127.0.0.1", self.port, "/v1/chat/completions", b"{}", {}, self.must_contain)
        own = psutil.Process()
        yield [
            Arm("a", "all loads", {"one": request, "two": request}, lambda: [own]),
            Arm("b", "one load", {"two": request}, lambda: [own]),
        ]
        self.stopped = True


@pytest.fixture
def scenario(upstream_port) -> TwoArms:
    made = TwoArms(Options())
    made.port = upstream_port
    return made


def test_arms_take_turns_within_each_load(scenario):
    seen = []
    arms, samples = measure(scenario, 2, FAST, seen.append)
    assert [(s.repeat, s.load, s.arm) for s in samples] == [
        (repeat, load, arm) for repeat in (0, 1) for load, arm in (("one", "a"), ("two", "a"), ("two", "b"))
    ]
    assert seen == samples
    assert [arm.name for arm in arms] == ["a", "b"]
    assert scenario.stopped
    for sample in samples:
        assert sample.requests > 0
        assert sample.requests_per_s == pytest.approx(sample.requests / 0.1, rel=0.5)
        assert sample.rss_mb > 0
        assert sample.cpu_ms_per_request >= 0


def test_a_wrong_answer_ends_the_run(scenario):
    scenario.must_contain = "no such text"
    with pytest.raises(MeasurementFailed, match=r"a/one: \d+ of \d+ requests failed, the first with: 200"):
        measure(scenario, 1, FAST, [].append)
