"""Reservations whose gateway is gone: when they expire, what they cost, and who may still settle them."""

from __future__ import annotations

import asyncio

from runtime.store.client import Store
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.limits import Limits
from serve_apps.gateway.quotas import (
    DUE_TENANTS,
    LEASE_S,
    SEEN_TENANTS,
    Observed,
    QuotaLedger,
    Totals,
    records_key,
)
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.quota_clients import Client, at_all_levels, key_with, records


async def test_renewed_reservations_do_not_expire(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(tokens=1000))
    held = [await caller.reserve(1) for _ in range(70)]
    for _ in range(5):
        clock.now += LEASE_S - 1
        observed = [Observed(each.reservation_id, Spent(1)) for each in held]
        assert await ledger.renew("acme", observed) == []
        assert await ledger.settle_due() == 0
    assert (await ledger.totals("acme", "k1")).open == 70


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
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=30, expired=1)


async def test_limits_hold_what_an_orphan_had_reserved_until_nobody_can_settle_it(
    store: Store, clock: Clock
) -> None:
    """Its gateway may live, cut off from the store: what it is charged then must not be another's already."""
    ledger = QuotaLedger(store, clock=clock, monotonic=clock)
    limits = Limits(tokens_per_minute=100, tokens_per_day=150, concurrent_requests=1)
    caller = Client(ledger, at_all_levels(key=limits))
    cut_off = await caller.reserve(100)
    await ledger.renew("acme", [Observed(cut_off.reservation_id, Spent(30))])
    clock.now += LEASE_S
    assert await ledger.settle_due() == 1
    assert await left(ledger, caller) == {
        "tokens_per_minute": 0,
        "concurrent_requests": 1,
        "tokens_per_day": 50,
    }
    assert await ledger.settle(cut_off, Spent(80))
    assert await left(ledger, caller) == {
        "tokens_per_minute": 20,
        "concurrent_requests": 1,
        "tokens_per_day": 70,
    }
    clock.now += 100
    dead = await caller.reserve(70)
    await ledger.renew("acme", [Observed(dead.reservation_id, Spent(10))])
    clock.now += LEASE_S
    assert await ledger.settle_due() == 1
    clock.now += 599
    assert await ledger.settle_due() == 0
    assert (await left(ledger, caller))["tokens_per_day"] == 0
    clock.now += 1
    assert await ledger.settle_due() == 0
    assert (await left(ledger, caller))["tokens_per_day"] == 60
    assert not await ledger.settle(dead, Spent(50))
    assert await ledger.totals("acme", "k1") == Totals(requests=2, tokens=90, expired=2)


async def left(ledger: QuotaLedger, caller: Client) -> dict[str, int]:
    return {state.kind: state.remaining for state in await ledger.left(caller.key)}


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


async def test_an_orphan_is_found_in_time_though_an_earlier_one_is_remembered(
    store: Store, clock: Clock
) -> None:
    """The tenant is noted every few seconds, and was looked at just after it had been."""
    ledger = QuotaLedger(store, clock=clock, monotonic=clock)
    caller = Client(ledger, key_with(tokens=100))
    await caller.reserve(10)
    clock.now += LEASE_S
    await ledger.settle(await caller.reserve(10), Spent(1))
    assert await ledger.settle_due() == 1
    clock.now += 1
    await caller.reserve(10)
    clock.now += LEASE_S + 1
    assert await ledger.settle_due() == 1


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


async def test_an_orphan_is_told_by_the_record_it_carries(
    store: Store, ledger: QuotaLedger, clock: Clock
) -> None:
    key = key_with(tokens=100)
    await ledger.reserve(key, Demand("m", 9, 0), reservation_id="r", record=b"orphan")
    clock.now += LEASE_S
    assert await ledger.settle_due() == 1
    assert await records(store) == [b"orphan"]
