"""Counters of replicas as rates."""

from __future__ import annotations

import pytest

from cluster.autoscaling.rates import Counters, Window


def test_a_steady_stream_is_its_mean() -> None:
    window = Window()
    for second in range(120):
        window.add(3.0, float(second))
    assert window.rate(119.0) == window.steady(119.0) == 3.0


def test_a_burst_is_seen_at_once_and_chance_is_not() -> None:
    window = Window()
    for second in range(60):
        window.add(1.0, float(second))
    window.add(3.0, 60.0)
    assert window.rate(60.0) == pytest.approx(62 / 60)  # 5 in three seconds
    window.add(10.0, 60.5)
    assert window.rate(60.5) == pytest.approx((2 + 13) / 3)


def test_a_slower_rise_is_seen_in_ten_seconds() -> None:
    window = Window()
    for second in range(110):
        window.add(1.0 if second < 100 else 3.0, float(second))
    assert window.rate(109.0) == pytest.approx(3.0)


def test_a_lone_call_is_no_burst() -> None:
    window = Window()
    window.add(1.0, 0.0)
    assert window.rate(0.0) == pytest.approx(1 / 60)


def test_it_keeps_a_minute_however_long_it_goes_on() -> None:
    window = Window()
    for second in range(10_000):
        window.add(1.0, float(second))
    assert window.within(60.0, 9_999.0) == 60.0


def test_it_forgets_within_a_minute() -> None:
    window = Window()
    window.add(60.0, 0.0)
    assert window.steady(59.0) == 1.0
    assert window.steady(61.0) == window.rate(61.0) == 0.0
    assert window.last == 0.0


def test_what_came_at_this_moment() -> None:
    window = Window()
    window.add(2.0, 1.0)
    window.add(3.0, 1.0)
    assert (window.added(1.0), window.added(1.1)) == (5.0, 0.0)


def test_what_was_counted_before_the_first_look_is_long_past() -> None:
    counters = Counters()
    counters.tell({"a": {"calls": 1000}}, 0.0)
    assert counters.window("calls").within(60, 0.0) == 0
    counters.tell({"a": {"calls": 1004}, "b": {"calls": 2}}, 1.0)
    assert counters.window("calls").within(60, 1.0) == 6


def test_replicas_that_go_or_start_again_take_nothing_away() -> None:
    counters = Counters()
    counters.tell({"a": {"calls": 5}, "b": {"calls": 5}}, 0.0)
    counters.tell({"a": {"calls": 1}}, 1.0)
    assert counters.window("calls").within(60, 1.0) == 0
    counters.tell({"a": {"calls": 3}}, 2.0)
    assert counters.window("calls").within(60, 2.0) == 2
