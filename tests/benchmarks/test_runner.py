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
    subjects = ("b",)
    goals = ()
    notes = ()
    port = 0
    must_contain = "word19"
    of_others = False

    def __init__(self, options: Options) -> None:
        self.stopped = False

    @contextmanager
    def started(self):
        request = HttpRequest("127.0.0.1", self.port, "/v1/chat/completions", b"{}", {}, self.must_contain)
        own = psutil.Process()
        yield [
            Arm("a", "all loads", {"one": request, "two": request}, lambda: [own], self.of_others),
            Arm("b", "one load", {"two": request}, lambda: [own], self.of_others),
        ]
        self.stopped = True


@pytest.fixture
def scenario(upstream_port) -> TwoArms:
    made = TwoArms(Options())
    made.port = upstream_port
    return made


def test_arms_take_turns_within_each_load(scenario):
    seen = []
    arms, samples, failed = measure(scenario, 2, FAST, seen.append)
    assert [(s.repeat, s.load, s.arm) for s in samples] == [
        (repeat, load, arm) for repeat in (0, 1) for load, arm in (("one", "a"), ("two", "a"), ("two", "b"))
    ]
    assert seen == samples
    assert [arm.name for arm in arms] == ["a", "b"]
    assert scenario.stopped
    assert failed == {}
    for sample in samples:
        assert sample.requests > 0
        assert 0 < sample.requests / sample.requests_per_s < 60, "seconds that it took"
        assert sample.rss_mb > 0
        assert sample.cpu_ms_per_request >= 0


def test_a_wrong_answer_ends_the_run(scenario):
    scenario.must_contain = "no such text"
    with pytest.raises(MeasurementFailed, match=r"a/one: \d+ of \d+ requests failed, the first with: 200"):
        measure(scenario, 1, FAST, [].append)


def test_a_wrong_answer_of_others_is_told_and_ends_nothing(scenario, monkeypatch):
    monkeypatch.setattr(scenario, "must_contain", "no such text")
    monkeypatch.setattr(scenario, "of_others", True)
    session = measure(scenario, 2, FAST, [].append)
    assert session.samples == []
    assert set(session.failed) == {"one a", "two a", "two b"}
    assert all("requests failed" in why for why in session.failed.values())
    assert scenario.stopped
