"""One gateway's part of the limits while the store is out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.store.errors import StoreUnavailable
from serve_apps.gateway import local_share as module
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.quotas import Reservation
from serve_apps.gateway.refusals import QuotaExceeded


@dataclass
class Client:
    limits: Limits
    gateways: int = 1
    now: float = 1000.0
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.share = LocalShare(self.gateways)

    def reserve(self, tokens: int, output: int = 0, least: int | None = None) -> Reservation:
        caller = Caller("acme", "k1", allowance=Allowance(self.limits))
        demand = Demand("m", tokens, output, least)
        return self.share.reserve(caller, demand, f"r{next(self.numbers)}", self.now)

    def refused(self, tokens: int) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as caught:
            self.reserve(tokens)
        return caught.value


@pytest.mark.parametrize("limits", [Limits(tokens_per_day=10**6), Limits(money_per_month=10**6)])
def test_who_has_a_budget_is_not_admitted(limits: Limits) -> None:
    with pytest.raises(StoreUnavailable, match="budget"):
        Client(limits).reserve(1)


def test_each_gateway_has_its_part_rounded_down() -> None:
    client = Client(Limits(tokens_per_minute=100, requests_per_minute=1000), gateways=3)
    client.reserve(33)
    refusal = client.refused(1)
    assert (refusal.exceeded.limit, refusal.exceeded.remaining) == (33, 0)
    assert client.refused(34).retry_after_s is None
    assert Client(Limits(requests_per_minute=2), gateways=3).refused(1).retry_after_s is None


def test_what_was_taken_counts_for_60_to_65_seconds() -> None:
    client = Client(Limits(tokens_per_minute=100))
    client.now = 1004.0
    client.reserve(100)
    wait = client.refused(1).retry_after_s
    assert wait == 61
    client.now += wait - 0.1
    client.refused(1)
    client.now += 0.1
    client.reserve(100)


def test_calls_at_the_same_time_and_what_is_given_back() -> None:
    client = Client(Limits(concurrent_requests=1, tokens_per_minute=100, requests_per_minute=3))
    first = client.reserve(90)
    refusal = client.refused(1)
    assert (refusal.exceeded.kind, refusal.retry_after_s) == ("concurrent_requests", 1)
    assert client.share.close(first.reservation_id, Spent(10), 1)
    assert not client.share.close(first.reservation_id, Spent(10), 1)
    second = client.reserve(90)
    assert client.share.close(second.reservation_id, Spent(0), 0)
    assert [state.remaining for state in client.reserve(90).limits] == [2, 90, 1]


def test_an_output_that_may_be_cut_is_cut() -> None:
    client = Client(Limits(tokens_per_minute=100))
    assert client.reserve(30, 200, least=10).granted.output_tokens == 70
    with pytest.raises(QuotaExceeded) as caught:
        client.reserve(30, 200, least=10)
    assert caught.value.requested == 40


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WINDOWS", 10)
    share = LocalShare(1)
    demand = Demand("m", 1, 0)

    def ask(name: str, now: float) -> None:
        caller = Caller("acme", name, allowance=Allowance(Limits(tokens_per_minute=10)))
        share.reserve(caller, demand, name, now)

    for number in range(10):
        ask(f"k{number}", 0.0)
    with pytest.raises(StoreUnavailable, match="too many"):
        ask("one-more", 30.0)
    ask("one-more", 66.0)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60), st.booleans()), max_size=40), st.integers(1, 4)
)
def test_in_no_minute_more_than_the_part(calls: list[tuple[float, int, bool]], gateways: int) -> None:
    client = Client(Limits(tokens_per_minute=200), gateways)
    kept: list[tuple[float, int]] = []
    for seconds, tokens, settled in calls:
        client.now += seconds
        try:
            reservation = client.reserve(tokens)
        except QuotaExceeded:
            continue
        used = tokens // 2 if settled else tokens
        if settled:
            client.share.close(reservation.reservation_id, Spent(used), 1)
        kept.append((client.now, used))
        assert sum(each for at, each in kept if at > client.now - 60) <= 200 // gateways
