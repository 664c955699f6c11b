"""Quotas: never over the limit, and an exact ledger, on both kinds of store."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway.applied import MAX_APPLIED
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Price, Spent
from serve_apps.gateway.limits import MAX_LIMIT, Allowance, Limits
from serve_apps.gateway.quotas import (
    DUE_TENANTS,
    LEASE_S,
    SEEN_TENANTS,
    TENANTS_WITH_RECORDS,
    Observed,
    QuotaLedger,
    Reservation,
    Totals,
    records_key,
)
from serve_apps.gateway.refusals import QuotaExceeded

START = 1_900_000_000.0
"""Unix seconds, a multiple of 5: the start of a bucket."""

NONE = Limits()


def key_with(requests: int | None = None, tokens: int | None = None, name: str = "k1") -> Caller:
    return Caller("acme", name, allowance=Allowance(Limits(requests, tokens)))


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store: Store, clock: Clock) -> QuotaLedger:
    return QuotaLedger(store, clock=clock)


@dataclass
class Client:
    """Numbers its reservations."""

    ledger: QuotaLedger
    key: Caller
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def reserve(self, tokens: int) -> Reservation:
        return await self.ask(Demand("m", tokens, 0))

    async def ask(self, demand: Demand) -> Reservation:
        return await self.ledger.reserve(self.key, demand, reservation_id=f"r{next(self.numbers)}")

    async def refused(self, tokens: int) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as caught:
            await self.reserve(tokens)
        return caught.value


async def test_twenty_times_75_against_500_admit_exactly_6(store: Store) -> None:
    caller = Client(QuotaLedger(store), key_with(tokens=500))
    results = await asyncio.gather(*(caller.reserve(75) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Reservation) for result in results) == 6
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 14
    assert await caller.ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=6, open=6, reserved=450
    )


async def test_a_reservation_says_what_is_left(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(requests=10, tokens=100))
    await caller.reserve(30)
    requests, tokens = (await caller.reserve(20)).limits
    assert (requests.kind, requests.limit, requests.remaining, requests.reset_s) == (
        *("requests_per_minute", 10, 8, 65),
    )
    assert (tokens.kind, tokens.limit, tokens.remaining, tokens.reset_s) == ("tokens_per_minute", 100, 50, 65)


async def test_settling_frees_what_was_not_used_at_once(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    first = await caller.reserve(100)
    assert (await caller.refused(1)).exceeded.remaining == 0
    assert await ledger.settle(first, Spent(40))
    assert (await caller.reserve(60)).limits[0].remaining == 0
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=2, open=1, reserved=60, tokens=40
    )


async def test_settling_twice_charges_once(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    reservation = await caller.reserve(50)
    outcomes = await asyncio.gather(*(ledger.settle(reservation, Spent(30)) for _ in range(10)))
    assert sorted(outcomes) == [False] * 9 + [True]
    assert not await ledger.release(reservation)
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=30)


async def test_release_gives_the_request_back_and_settle_does_not(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(requests=1, tokens=100))
    assert await ledger.release(await caller.reserve(50))
    assert await ledger.settle(await caller.reserve(50), Spent(0))
    assert (await caller.refused(50)).exceeded.kind == "requests_per_minute"
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1)


async def test_use_beyond_the_reservation_is_charged(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    assert await ledger.settle(await caller.reserve(10), Spent(130))
    refusal = await caller.refused(1)
    assert (refusal.exceeded.remaining, refusal.retry_after_s) == (0, 65)
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=130)


async def test_nothing_is_taken_when_one_of_the_limits_refuses(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(requests=10, tokens=100))
    refusal = await caller.refused(101)
    assert (refusal.exceeded.kind, refusal.requested) == ("tokens_per_minute", 101)
    assert refusal.retry_after_s is None
    assert [limit.remaining for limit in refusal.limits] == [10, 100]
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals()


async def test_the_limit_that_refuses_for_longest_speaks(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(requests=2, tokens=100))
    await caller.reserve(10)
    clock.now += 20
    await caller.reserve(85)
    refusal = await caller.refused(50)
    assert (refusal.exceeded.kind, refusal.retry_after_s) == ("tokens_per_minute", 65)
    assert (await caller.refused(1)).retry_after_s == 45


async def test_retry_after_is_when_the_call_is_admitted_and_not_before(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    await caller.reserve(60)
    clock.now += 7
    await caller.reserve(40)
    clock.now += 1
    wait = (await caller.refused(30)).retry_after_s
    assert wait == 65 - 8
    clock.now += wait - 0.001
    await caller.refused(30)
    clock.now += 0.001
    assert (await caller.reserve(30)).limits[0].remaining == 30


async def test_no_unlimited_key_is_refused_and_its_ledger_is_kept(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with())
    reservation = await caller.reserve(10**9)
    assert reservation.limits == ()
    await ledger.settle(reservation, Spent(12))
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=12)


async def test_a_clock_that_steps_back_frees_nothing(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(tokens=100))
    await caller.reserve(100)
    clock.now -= 3600
    assert (await caller.refused(1)).retry_after_s == 65
    clock.now += 64
    await caller.refused(1)
    clock.now += 1
    assert (await caller.reserve(100)).limits[0].remaining == 0


async def test_a_refund_after_the_clock_stepped_back_finds_its_bucket(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    reservation = await caller.reserve(100)
    clock.now -= 3600
    await ledger.settle(reservation, Spent(10))
    assert (await caller.reserve(90)).limits[0].remaining == 0


async def test_orphans_expire_and_are_charged_what_was_seen_of_them(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(requests=100, tokens=100))
    orphan = await caller.reserve(100)
    assert await ledger.renew("acme", [Observed(orphan.reservation_id, Spent(30))]) == []
    clock.now += LEASE_S - 0.1
    await caller.refused(1)
    assert await ledger.settle_due() == 0
    clock.now += 0.2
    assert await ledger.settle_due() == 1
    assert await ledger.settle_due() == 0
    assert [limit.remaining for limit in (await caller.reserve(70)).limits] == [98, 0]
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=2, open=1, reserved=70, tokens=30, expired=1
    )


async def test_who_settles_after_all_is_charged_the_rest_once(
    store: Store, ledger: QuotaLedger, clock: Clock
) -> None:
    """Its gateway could not reach the store for a while."""
    caller = Client(ledger, key_with(tokens=100))
    late = await caller.reserve(100)
    await ledger.renew("acme", [Observed(late.reservation_id, Spent(30, 7), b"so far")])
    clock.now += LEASE_S + 1
    assert await ledger.settle_due() == 1
    assert await ledger.renew("acme", [Observed(late.reservation_id, Spent(40))]) == [late.reservation_id]
    assert [await ledger.settle(late, Spent(50, 9), b"in all") for _ in range(2)] == [True, False]
    assert await ledger.totals("acme", "k1") == Totals(requests=1, tokens=50, nanodollars=9, expired=1)
    assert (await caller.refused(51)).exceeded.remaining == 50
    entries = await store.execute("XRANGE", records_key("acme"), "-", "+")
    assert [fields for _, fields in entries] == [
        [b"record", b"so far"],
        [b"record", b"in all", b"before", b"so far"],
    ]


async def test_an_orphan_is_remembered_for_a_while_and_then_forgotten(
    store: Store, ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    orphan = await caller.reserve(100)
    clock.now += LEASE_S + 1
    await ledger.settle_due()
    clock.now += 600
    await ledger.settle_due()
    assert not await ledger.settle(orphan, Spent(50))
    assert await store.execute("HLEN", "cgh:{acme}:quota:open") == 0
    clock.now += LEASE_S
    await ledger.settle_due()
    assert await store.execute("EXISTS", DUE_TENANTS, SEEN_TENANTS) == 0


async def test_orphans_of_many_tenants_are_found_without_a_call_of_theirs(
    store: Store, ledger: QuotaLedger, clock: Clock
) -> None:
    callers = [Caller(f"tenant-{number}", "k") for number in range(100)]
    await asyncio.gather(
        *(ledger.reserve(each, Demand("m", 5, 0), reservation_id=f"r{n}") for each in callers for n in (1, 2))
    )
    clock.now += LEASE_S + 0.5
    other = QuotaLedger(store, clock=clock)
    assert [await other.settle_due() for _ in range(3)] == [128, 72, 0]
    for each in callers:
        assert await other.totals(each.tenant, each.id) == Totals(requests=2, expired=2)


async def test_renewed_reservations_do_not_expire(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(tokens=1000))
    held = [await caller.reserve(1) for _ in range(70)]
    for _ in range(5):
        clock.now += LEASE_S - 1
        observed = [Observed(each.reservation_id, Spent(1)) for each in held]
        assert await ledger.renew("acme", observed) == []
        assert await ledger.settle_due() == 0
    assert (await ledger.totals("acme", "k1")).open == 70


async def test_many_orphans_are_settled_at_once(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(tokens=10_000))
    await asyncio.gather(*(caller.reserve(10) for _ in range(200)))
    clock.now += LEASE_S
    assert await ledger.settle_due() == 200
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=200, expired=200)


async def test_a_reservation_past_its_time_still_settles_until_somebody_looks(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    reservation = await caller.reserve(100)
    clock.now += LEASE_S + 1
    assert await ledger.settle(reservation, Spent(70))
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=70)


async def test_the_same_reservation_twice_is_taken_once(ledger: QuotaLedger) -> None:
    key = key_with(requests=1, tokens=50)
    first = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same")
    again = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same")
    assert first == again
    assert await ledger.totals(key.tenant, key.id) == Totals(requests=1, open=1, reserved=50)


async def records(store: Store, tenant: str = "acme") -> list[bytes]:
    return [fields[1] for _, fields in await store.execute("XRANGE", records_key(tenant), "-", "+")]


async def test_a_record_is_told_exactly_once_and_to_its_tenant_alone(
    store: Store, ledger: QuotaLedger
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    reservation = await caller.reserve(10)
    assert await records(store) == []
    told = (ledger.settle(reservation, Spent(4), b"%d" % number) for number in range(5))
    assert sum(await asyncio.gather(*told)) == 1
    assert len(await records(store)) == 1
    assert await ledger.release(await caller.reserve(10), b"released")
    assert await ledger.settle(await caller.reserve(10), Spent(0))
    assert (await records(store))[1:] == [b"released"]
    assert await records(store, "other") == []


async def test_an_orphan_is_told_by_the_record_it_carries(
    store: Store, ledger: QuotaLedger, clock: Clock
) -> None:
    key = key_with(tokens=100)
    await ledger.reserve(key, Demand("m", 9, 0), reservation_id="r", record=b"orphan")
    clock.now += LEASE_S
    assert await ledger.settle_due() == 1
    assert await records(store) == [b"orphan"]


async def test_tenants_are_noted_before_their_calls(store: Store, ledger: QuotaLedger, clock: Clock) -> None:
    await Client(ledger, key_with()).reserve(1)
    await Client(ledger, Caller("other", "k")).reserve(1)
    noted = await store.execute("ZRANGE", TENANTS_WITH_RECORDS, 0, -1, "WITHSCORES")
    assert dict(zip(noted[::2], map(float, noted[1::2]), strict=True)) == {
        b"acme": clock.now * 1000,
        b"other": clock.now * 1000,
    }


async def test_keys_and_tenants_do_not_share_limits(ledger: QuotaLedger) -> None:
    keys = [Caller(t, k, allowance=Allowance(Limits(1, 10))) for t in ("acme", "other") for k in ("k1", "k2")]
    for key in keys:
        await ledger.reserve(key, Demand("m", 10, 0), reservation_id="r") if key.id == "k1" else None
    for key in keys:
        expected = Totals(requests=1, open=1, reserved=10) if key.id == "k1" else Totals()
        assert await ledger.totals(key.tenant, key.id) == expected
    with pytest.raises(InvalidName, match="tenant"):
        await ledger.reserve(Caller("a}:{b", "k"), Demand("m", 1, 0), reservation_id="r")


async def test_impossible_amounts_are_refused(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    with pytest.raises(ValueError, match="between 0 and"):
        await caller.reserve(-1)
    with pytest.raises(ValueError, match="between 0 and"):
        await caller.reserve(10**9 + 1)
    reservation = await caller.reserve(1)
    with pytest.raises(ValueError, match="between 0 and"):
        await ledger.settle(reservation, Spent(-1))


async def test_everything_has_a_time_to_live(store: Store, ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(requests=10, tokens=100))
    await ledger.settle(await caller.reserve(10), Spent(5), b"record")
    await caller.reserve(10)
    keys = await store.execute("KEYS", "*")
    everybodys = {DUE_TENANTS, SEEN_TENANTS, TENANTS_WITH_RECORDS}
    own = {key.decode() for key in keys} - everybodys
    assert len(own) == 6
    for key in own:
        assert 0 < await store.execute("TTL", key) <= 35 * 24 * 3600, key


async def test_a_cancelled_caller_leaves_nothing_taken(store: Store) -> None:
    ledger = QuotaLedger(store)
    key = key_with(tokens=10_000)
    calls = [
        asyncio.ensure_future(ledger.reserve(key, Demand("m", 10, 0), reservation_id=f"r{i}"))
        for i in range(100)
    ]
    await asyncio.sleep(0)
    sent = random.Random(1).sample(calls, 50)
    for call in sent[:25]:
        call.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for call in sent[25:]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    kept = [result for result in results if isinstance(result, Reservation)]
    assert len(kept) == 50
    await asyncio.gather(*(ledger.settle(reservation, Spent(7)) for reservation in kept))
    assert await ledger.totals(key.tenant, key.id) == Totals(requests=50, tokens=350)


async def test_a_settlement_goes_through_when_its_caller_is_cancelled(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    settling = asyncio.ensure_future(ledger.settle(await caller.reserve(50), Spent(30)))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    await caller.reserve(1)
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=2, open=1, reserved=1, tokens=30
    )


async def test_nothing_is_admitted_while_the_store_is_out(mute_url: str) -> None:
    store = Store.connect(mute_url, timeout_s=0.1)
    ledger = QuotaLedger(store)
    loop = asyncio.get_running_loop()

    async def decide(delay_s: float) -> float:
        await asyncio.sleep(delay_s)
        began = loop.time()
        with pytest.raises(StoreUnavailable):
            await Client(ledger, key_with(tokens=100)).reserve(1)
        return loop.time() - began

    waits = await asyncio.gather(*(decide(delay / 100) for delay in range(20)))
    assert max(waits) < 5
    await store.close()


async def test_over_two_gateways_a_thousand_calls_never_overspend(store: Store, store_url: str) -> None:
    """What is admitted never exceeds the limit, and the ledger is the sum of what was used."""
    other = Store.connect(store_url, timeout_s=5)
    ledgers = [QuotaLedger(store), QuotaLedger(other)]
    key = key_with(requests=700, tokens=5_000)
    chance = random.Random(7)
    used: list[int] = []

    async def call(number: int) -> None:
        ledger = ledgers[number % 2]
        tokens, fate = chance.randint(1, 40), chance.random()
        try:
            reservation = await ledger.reserve(key, Demand("m", tokens, 0), reservation_id=f"r{number}")
        except QuotaExceeded:
            return
        if fate < 0.1:
            assert await ledger.release(reservation)
            return
        used.append(chance.randint(0, tokens))
        assert await ledger.settle(reservation, Spent(used[-1]))

    await asyncio.gather(*(call(number) for number in range(1_000)))
    totals = await ledgers[0].totals(key.tenant, key.id)
    assert totals == Totals(requests=len(used), tokens=sum(used))
    assert sum(used) <= 5_000
    assert len(used) <= 700
    await other.close()


DAY_S = 24 * 3600
MIDNIGHT = 1_900_022_400.0
"""Unix seconds: 2030-03-18, 00:00 UTC."""


def at_all_levels(
    organisation: Limits = NONE,
    team: Limits = NONE,
    key: Limits = NONE,
    name: str = "k1",
    team_name: str = "t1",
) -> Caller:
    return Caller(
        *("acme", name, team_name),
        organisation_allowance=Allowance(organisation),
        team_allowance=Allowance(team),
        allowance=Allowance(key),
    )


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
