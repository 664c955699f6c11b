"""Who gives way to a budget."""

from __future__ import annotations

from cluster.autoscaling.budget import within
from cluster.autoscaling.model import PoolScale


def pool(per_hour: float, least: int = 0, most: int = 64) -> PoolScale:
    return PoolScale(least, most, 8, 1.0, per_hour)


def test_the_example_of_the_module() -> None:
    pools = {"a": pool(1.0), "b": pool(2.0)}
    assert within({"a": 8, "b": 4}, pools, 8.0) == {"a": 4, "b": 2}


def test_what_is_within_it_is_left_alone() -> None:
    pools = {"a": pool(1.0), "b": pool(2.0)}
    for most in (None, 16.0):
        assert within({"a": 8, "b": 4}, pools, most) == {"a": 8, "b": 4}


def test_all_of_a_path_are_cut_by_the_same_share() -> None:
    pools = {"dear": pool(7.0), "cheap": pool(0.5)}
    given = within({"dear": 10, "cheap": 20}, pools, 40.0)
    assert given == {"dear": 5, "cheap": 10}


def test_one_of_each_and_the_least_always_remain() -> None:
    pools = {"a": pool(10.0, least=2), "b": pool(10.0), "c": pool(10.0)}
    assert within({"a": 5, "b": 5, "c": 0}, pools, 30.0) == {"a": 2, "b": 1, "c": 0}
    assert within({"a": 5, "b": 5, "c": 1}, pools, 30.0) == {"a": 2, "b": 1, "c": 1}


def test_what_has_no_price_gives_way_to_nothing() -> None:
    pools = {"free": pool(0.0), "dear": pool(5.0)}
    assert within({"free": 9, "dear": 9}, pools, 10.0) == {"free": 9, "dear": 2}


def test_what_is_left_goes_to_whom_it_is_enough_for() -> None:
    pools = {"dear": pool(7.0), "cheap": pool(1.0)}
    assert within({"dear": 4, "cheap": 4}, pools, 12.0) == {"dear": 1, "cheap": 4}


def test_equals_are_served_by_name() -> None:
    pools = {"b": pool(1.0), "a": pool(1.0)}
    assert within({"b": 3, "a": 3}, pools, 3.0) == {"a": 2, "b": 1}
