"""What is meant in itself counts by its best repeat, what is compared by the median within repeats."""

from __future__ import annotations

import pytest

from benchmarks.goals import judged, meaning
from benchmarks.runner import Sample
from benchmarks.scenario import Goal


def sample(arm: str, repeat: int, rate: float, first_byte: float = 0.0, cpu: float = 1.0) -> Sample:
    return Sample("chat", arm, repeat, 100, rate, 1.0, 2.0, 3.0, first_byte, cpu, 50.0, 0.1)


SAMPLES = [
    sample("peer", 0, 100.0, 10.0),
    sample("ours", 0, 80.0, 12.0, cpu=0.9),
    sample("peer", 1, 200.0, 10.0),
    sample("ours", 1, 190.0, 40.0, cpu=0.6),
    sample("peer", 2, 50.0, 10.0),
    sample("ours", 2, 45.0, 15.0, cpu=3.0),
]


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal("chat", "ours", "cpu_ms_per_request", "<=", 0.7), 0.6, True),
        (Goal("chat", "ours", "cpu_ms_per_request", "<=", 0.5), 0.6, False),
        (Goal("chat", "ours", "requests_per_s", ">=", 190), 190.0, True),
        (Goal("chat", "ours", "requests_per_s", ">=", 0.9, "ratio", "peer"), 0.9, True),
        (Goal("chat", "ours", "requests_per_s", ">=", 0.91, "ratio", "peer"), 0.9, False),
        (Goal("chat", "ours", "first_byte_p50_ms", "<=", 5, "difference", "peer"), 5.0, True),
    ],
)
def test_a_goal_is_judged(goal: Goal, value: float, reached: bool) -> None:
    [judgement] = judged([goal], SAMPLES)
    assert judgement.value == pytest.approx(value)
    assert judgement.reached is reached


def test_what_was_not_measured_is_not_reached() -> None:
    [alone] = judged([Goal("chat", "ours", "requests_per_s", ">=", 0.1, "ratio", "none")], SAMPLES)
    assert (alone.value, alone.spread, alone.reached) == (None, None, False)


def test_a_goal_is_told_in_words() -> None:
    ratio = Goal("chat", "ours", "requests_per_s", ">=", 0.9, "ratio", "peer")
    assert meaning(ratio) == "chat: requests/s of `ours` / of `peer`"
    assert meaning(Goal("chat", "ours", "rss_mb", "<=", 9)) == "chat: rss_mb of `ours`, best repeat"
