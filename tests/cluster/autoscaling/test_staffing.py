"""Against Erlang's formulas, written out as sums, and the published values of Halfin and Whitt."""

from __future__ import annotations

import math

import pytest

from cluster.autoscaling.staffing import EXACT, servers


def erlang_c(count: int, load: float) -> float:
    """The sum of the textbooks."""
    last = load**count / math.factorial(count) * count / (count - load)
    return last / (sum(load**k / math.factorial(k) for k in range(count)) + last)


@pytest.mark.parametrize(("load", "late", "needed"), [(2.0, 0.05, 6), (2.0, 0.10, 5), (10.0, 0.05, 17)])
def test_erlang(load: float, late: float, needed: int) -> None:
    assert servers(load, 0.0, late) == needed
    assert erlang_c(needed, load) <= late < erlang_c(needed - 1, load)


def test_patience_needs_fewer_servers() -> None:
    at_once, after_one, after_ten = (servers(10.0, wait, 0.05) for wait in (0.0, 1.0, 10.0))
    assert (at_once, after_one, after_ten) == (17, 13, 11)
    assert erlang_c(13, 10.0) * math.exp(-3.0) <= 0.05 < erlang_c(12, 10.0) * math.exp(-2.0)


def test_nothing_needs_no_servers_and_anything_more_than_its_load() -> None:
    assert servers(0.0, 0.0, 0.05) == 0.0
    assert servers(1e-6, 0.0, 0.05) == 1.0
    for load in (0.5, 3.0, 99.0, 101.0, 5000.0):
        assert servers(load, 1e6, 0.05) > load


@pytest.mark.parametrize(("beta", "busy"), [(0.5, 0.504), (1.0, 0.223), (2.0, 0.026)])
def test_the_square_root_rule_has_the_published_values(beta: float, busy: float) -> None:
    """1 / (1 + beta Phi(beta) / phi(beta)), as in section 1 of the paper."""
    load = 10_000.0
    assert servers(load, 0.0, busy) == pytest.approx(load + beta * math.sqrt(load), rel=2e-4)


def test_both_ways_agree_where_they_meet() -> None:
    exact, rough = servers(EXACT, 0.1, 0.05), servers(EXACT * 1.0001, 0.1, 0.05)
    assert abs(exact - rough) <= 2.0
