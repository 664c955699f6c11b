from __future__ import annotations

import pytest

from cluster.admission import counters as module
from cluster.admission.counters import VirtualCounters


def waiting(*tenants: str, **weights: float) -> VirtualCounters:
    counters = VirtualCounters()
    for tenant in tenants:
        counters.join(tenant, weights.get(tenant, 1.0))
    return counters


def test_the_least_served_goes_next_and_of_equals_the_first() -> None:
    counters = waiting("a", "b", "c")
    assert counters.least() == "a"
    counters.charge("a", 10)
    counters.charge("b", 5)
    assert counters.least() == "c"
    counters.charge("c", 7)
    assert counters.least() == "b"


def test_nobody_is_least_where_nobody_waits() -> None:
    counters = waiting("a")
    counters.leave("a")
    assert counters.least() is None


def test_who_comes_back_is_lifted_to_the_least_of_those_that_wait() -> None:
    """Algorithm 2, lines 11 and 12."""
    counters = waiting("a", "b", "c")
    counters.leave("c")
    counters.charge("a", 900)
    counters.charge("b", 700)
    counters.join("c", 1.0)
    assert counters.of("c") == 700


def test_who_has_more_than_those_that_wait_keeps_it() -> None:
    counters = waiting("a", "b")
    counters.charge("b", 1000)
    counters.leave("b")
    counters.charge("a", 900)
    counters.join("b", 1.0)
    assert counters.of("b") == 1000
    assert counters.least() == "a"


def test_after_silence_who_comes_is_lifted_to_who_left_last() -> None:
    """Algorithm 2, lines 8 and 9: with what that one has been served since."""
    counters = waiting("a", "b", "c")
    for tenant in "bac":
        counters.leave(tenant)
    counters.charge("a", 900)
    counters.charge("c", 300)
    counters.join("b", 1.0)
    assert counters.of("b") == 300
    counters.join("new", 1.0)
    assert counters.of("new") == 300


def test_service_counts_by_weight() -> None:
    counters = waiting("a", "b", b=2.0)
    counters.charge("a", 100)
    counters.charge("b", 150)
    assert counters.least() == "b"
    counters.charge("b", 51)
    assert counters.least() == "a"


def test_what_is_given_back_counts_at_once() -> None:
    counters = waiting("a", "b")
    counters.charge("a", 100)
    counters.charge("b", 50)
    assert counters.least() == "b"
    counters.charge("a", -80)
    assert counters.least() == "a"


def test_tenants_that_are_idle_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    counters = waiting("a", "b", "c", "d")
    for tenant in "abc":
        counters.charge(tenant, 100)
        counters.leave(tenant)
    counters.charge("a", 1)  # forgotten: nothing to charge
    assert (len(counters), counters.of("a"), counters.of("b")) == (3, 0, 100)


def test_joining_again_and_again_beside_one_that_waits_leaves_nothing_behind() -> None:
    counters = waiting("a")
    for _ in range(10_000):
        counters.join("b", 1.0)
        counters.charge("b", 1)
        counters.leave("b")
    assert counters.least() == "a"
    assert len(counters._heap) < 200
