"""The limits that a call may meet: of all levels and windows, of money, and what would still fit."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import msgspec
import pytest

from runtime.store.client import Store
from serve_apps.gateway.applied import MAX_APPLIED
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Price, Spent
from serve_apps.gateway.limits import MAX_LIMIT, Allowance, Limits
from serve_apps.gateway.quotas import (
    LEASE_S,
    QuotaLedger,
)
from serve_apps.gateway.refusals import QuotaExceeded
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.quota_clients import Client, at_all_levels

DAY_S = 24 * 3600
MIDNIGHT = 1_900_022_400.0
"""Unix seconds: 2030-03-18, 00:00 UTC."""


@pytest.mark.parametrize("level", ["organisation", "team", "key"])
async def test_each_level_refuses_and_takes_nothing_from_the_others(ledger: QuotaLedger, level: str) -> None:
    wide, narrow = Limits(10, 1000), Limits(10, 50)
    caller = Client(ledger, at_all_levels(**{"organisation": wide, "team": wide, "key": wide, level: narrow}))
    await caller.reserve(30)
    refusal = await caller.refused(30)
    assert (refusal.exceeded.level, refusal.exceeded.kind) == (level, "tokens_per_minute")
    assert refusal.exceeded.level_id == {"organisation": "acme", "team": "t1", "key": "k1"}[level]
    assert [limit.remaining for limit in refusal.limits if limit.limit == 1000] == [970, 970]


async def test_keys_of_a_team_and_teams_of_an_organisation_share_what_these_have(ledger: QuotaLedger) -> None:
    of_all, of_team = Limits(tokens_per_day=100), Limits(tokens_per_day=70)
    first, second = (Client(ledger, at_all_levels(of_all, of_team, name=name)) for name in ("k1", "k2"))
    third = Client(ledger, at_all_levels(of_all, of_team, name="k3", team_name="t2"))
    second.numbers, third.numbers = itertools.count(100), itertools.count(200)
    await first.reserve(40)
    assert (await second.refused(31)).exceeded.level == "team"
    assert (await third.refused(61)).exceeded.level == "organisation"
    await third.reserve(60)


async def test_a_model_has_limits_of_its_own_beside_those_of_everything(ledger: QuotaLedger) -> None:
    models = {"small": Limits(tokens_per_minute=10), "graph/rag": Limits(requests_per_minute=0)}
    caller = Client(
        ledger, Caller("acme", "k1", allowance=Allowance(Limits(tokens_per_minute=100), models=models))
    )
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("small", 11, 0))
    assert caught.value.exceeded.model == "small"
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("graph/rag", 1, 0))
    assert caught.value.retry_after_s is None
    await caller.ask(Demand("large", 80, 0))
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("small", 10, 11))
    assert {limit.model: limit.remaining for limit in await ledger.left(caller.key)} == {
        None: 20,
        "small": 10,
        "graph/rag": 0,
    }


async def test_calls_at_the_same_time_are_counted_until_they_end(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, at_all_levels(key=Limits(concurrent_requests=2)))
    held = [await caller.reserve(1), await caller.reserve(1)]
    refusal = await caller.refused(1)
    assert (refusal.exceeded.kind, refusal.exceeded.remaining) == ("concurrent_requests", 0)
    assert refusal.retry_after_s == 1
    assert refusal.exceeded.reset_s is None
    assert await ledger.settle(held[0], Spent(1))
    await caller.reserve(1)
    await ledger.release(held[1])
    await caller.reserve(1)
    await caller.refused(1)
    clock.now += LEASE_S
    assert await ledger.settle_due() == 2
    assert (await caller.reserve(1)).limits[0].remaining == 1


async def test_a_day_ends_at_midnight_and_no_step_back_brings_it_again(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, at_all_levels(key=Limits(tokens_per_day=100)))
    clock.now = MIDNIGHT + DAY_S - 10
    await ledger.settle(await caller.reserve(100), Spent(60))
    yesterdays = await caller.reserve(40)
    refusal = await caller.refused(1)
    assert (refusal.retry_after_s, refusal.exceeded.reset_s) == (10, 10)
    clock.now += 10
    assert (await caller.reserve(90)).limits[0].remaining == 10
    assert await ledger.settle(yesterdays, Spent(0))
    assert (await caller.refused(11)).exceeded.remaining == 10
    clock.now -= 60
    assert (await caller.refused(11)).retry_after_s == DAY_S + 60


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2100, 2, 28, 12, tzinfo=UTC), datetime(2100, 3, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)),
        (datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)),
    ],
)
async def test_months_are_those_of_the_calendar(
    one_store: Store, clock: Clock, now: datetime, until: datetime
) -> None:
    ledger = QuotaLedger(one_store, clock=clock)
    caller = Client(ledger, at_all_levels(key=Limits(money_per_month=100)))
    clock.now = now.timestamp()
    price = Price(input=1000)
    await caller.ask(Demand("m", 100, 0, price=price))
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("m", 1, 0, price=price))
    assert caught.value.retry_after_s == (until - now).total_seconds()
    clock.now = until.timestamp()
    assert (await caller.ask(Demand("m", 1, 0, price=price))).limits[0].remaining == 99


async def test_money_is_that_of_the_tokens_and_of_the_longest_time_rounded_up(ledger: QuotaLedger) -> None:
    caller = Client(ledger, at_all_levels(key=Limits(money_per_month=10_000)))
    price = Price(input=1_500, cached_input=100, output=2_500, second=10_000)
    reservation = await caller.ask(Demand("m", 3, 5, price=price, seconds=1.05))
    held = -(-(3 * 1_500 + 10_500) // 1000) + -(-5 * 2_500 // 1000)
    assert reservation.limits[0].remaining == 10_000 - held
    assert await ledger.settle(reservation, Spent(8, 11))
    assert (await ledger.left(caller.key))[0].remaining == 9_989
    assert (await ledger.totals("acme", "k1")).nanodollars == 11
    for nanodollars in (MAX_LIMIT, 2**53):
        with pytest.raises(ValueError, match="nanodollars must be between"):
            await ledger.settle(reservation, Spent(1, nanodollars))


@pytest.mark.parametrize(
    ("limits", "granted"),
    [
        (Limits(tokens_per_minute=100), 70),
        (Limits(tokens_per_day=90), 60),
        (Limits(money_per_month=100), 35),
        (Limits(tokens_per_minute=100, tokens_per_day=90, money_per_month=115), 42),
        (Limits(tokens_per_minute=1000), 200),
        (Limits(tokens_per_minute=40), 10),
    ],
)
async def test_an_output_that_may_be_cut_is_granted_what_is_left(
    ledger: QuotaLedger, limits: Limits, granted: int
) -> None:
    caller = Client(ledger, at_all_levels(key=limits))
    price = Price(input=1_000, output=2_000)
    asked = Demand("m", 30, 200, least_output_tokens=10, price=price)
    reservation = await caller.ask(asked)
    assert reservation.granted.output_tokens == granted
    assert (await ledger.totals("acme", "k1")).reserved == 30 + granted
    assert min(limit.share_left for limit in reservation.limits) < 0.9
    again = await ledger.reserve(caller.key, asked, reservation_id=reservation.reservation_id)
    assert again.granted == reservation.granted


async def test_what_may_be_cut_is_refused_where_not_even_the_least_is_left(ledger: QuotaLedger) -> None:
    caller = Client(ledger, at_all_levels(key=Limits(tokens_per_minute=100)))
    await caller.reserve(61)
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("m", 30, 200, least_output_tokens=10))
    assert (caught.value.requested, caught.value.fits) == (40, None)
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(Demand("m", 95, 200, least_output_tokens=10))
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("demand", "fits"),
    [
        (Demand("m", 30, 200), "max_tokens up to 70"),
        (Demand("m", 30, 200, choices=4), "max_tokens up to 17"),
        (Demand("graph/rag", 0, 5000), "token_budget up to 100"),
        (Demand("m", 100, 1), None),
        (Demand("m", 99, 2), "max_tokens up to 1"),
        (Demand("m", 101, 0), None),
    ],
)
async def test_a_refusal_says_what_would_fit_and_that_does(
    ledger: QuotaLedger, demand: Demand, fits: str | None
) -> None:
    caller = Client(ledger, at_all_levels(key=Limits(tokens_per_minute=100)))
    with pytest.raises(QuotaExceeded) as caught:
        await caller.ask(demand)
    assert caught.value.fits == fits
    if fits is not None:
        output = int(fits.split()[-1]) * demand.choices
        await caller.ask(msgspec.structs.replace(demand, output_tokens=output))


async def test_what_is_left_is_told_without_taking_any(ledger: QuotaLedger, clock: Clock) -> None:
    limits = Limits(10, 100, 3, 1000, 5000)
    caller = Client(ledger, at_all_levels(limits, limits, limits))
    fresh = await ledger.left(caller.key)
    assert len(fresh) == 15
    assert all(state.remaining == state.limit for state in fresh)
    taken = await caller.reserve(20)
    assert await ledger.left(caller.key) == taken.limits
    clock.now += 30
    assert {state.reset_s for state in await ledger.left(caller.key) if "minute" in state.kind} == {35}


async def test_a_limit_set_while_calls_run_counts_from_then_on(ledger: QuotaLedger) -> None:
    free = await Client(ledger, at_all_levels()).reserve(500)
    limited = Client(ledger, at_all_levels(key=Limits(concurrent_requests=1, tokens_per_day=10)))
    limited.numbers = itertools.count(10)
    await limited.reserve(10)
    assert await ledger.settle(free, Spent(500))
    assert {state.remaining for state in await ledger.left(limited.key)} == {0}


async def test_everything_counts_at_once_and_stays_quick(one_store: Store) -> None:
    """Thirty limits, the most that a call can meet: no decision of one may hold others up for long."""
    limits = Limits(10_000, 10**9, 1000, 10**9, 10**9)
    allowance = Allowance(limits, models={"m": limits})
    key = Caller(
        "acme", "k1", organisation_allowance=allowance, team_allowance=allowance, allowance=allowance
    )
    ledger = QuotaLedger(one_store)
    held = [await ledger.reserve(key, Demand("m", 5, 5), reservation_id=f"r{number}") for number in range(50)]
    assert {len(each.limits) for each in held} == {MAX_APPLIED}
    for each in held:
        assert await ledger.settle(each, Spent(4))
    left = {(state.kind, state.limit - state.remaining) for state in await ledger.left(key)}
    assert left == {
        ("requests_per_minute", 50),
        ("tokens_per_minute", 200),
        ("concurrent_requests", 0),
        ("tokens_per_day", 200),
        ("money_per_month", 0),
    }
