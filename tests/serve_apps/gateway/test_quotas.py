"""Quotas: never over the limit, and an exact ledger, on both kinds of store."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import (
    DUE_TENANTS,
    SEEN_TENANTS,
    TENANTS_WITH_RECORDS,
    QuotaLedger,
    Reservation,
    Totals,
)
from serve_apps.gateway.refusals import QuotaExceeded
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.quota_clients import Client, key_with, records


async def test_twenty_times_75_against_500_admit_exactly_6(store: Store) -> None:
    caller = Client(QuotaLedger(store), key_with(tokens=500))
    results = await asyncio.gather(*(caller.reserve(75) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Reservation) for result in results) == 6
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 14
    assert await caller.ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=6, open=6, reserved=450
    )


async def test_limits_that_are_changed_count_from_the_next_call_on(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    assert [limit.limit for limit in (await caller.reserve(60)).limits] == [100]
    caller.key = key_with(requests=5, tokens=200)
    assert [limit.limit for limit in (await caller.reserve(60)).limits] == [5, 200]
    caller.key = msgspec.structs.replace(
        key_with(), team_allowance=Allowance(models={"m": Limits(tokens_per_minute=7)})
    )
    assert (await caller.refused(8)).exceeded.model == "m"
    assert (await caller.ask(Demand("n", 8, 0))).limits == ()


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


async def test_the_same_reservation_twice_is_taken_once(ledger: QuotaLedger) -> None:
    key = key_with(requests=1, tokens=50)
    first = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same")
    again = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same")
    assert first == again
    assert await ledger.totals(key.tenant, key.id) == Totals(requests=1, open=1, reserved=50)


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
    assert max(waits) < 60
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
