"""Quotas: never over the limit, and an exact ledger, on both kinds of store."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import (
    DUE_TENANTS,
    SEEN_TENANTS,
    TENANTS_WITH_RECORDS,
    QuotaExceeded,
    QuotaLedger,
    Reservation,
    Totals,
    records_key,
)

START = 1_900_000_000.0
"""Unix seconds, a multiple of 5: the start of a bucket."""


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

    async def reserve(self, tokens: int, ttl_s: float = 600) -> Reservation:
        reservation_id = f"r{next(self.numbers)}"
        return await self.ledger.reserve(
            self.key, Demand("m", tokens, 0), reservation_id=reservation_id, ttl_s=ttl_s
        )

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
    assert (requests.name, requests.limit, requests.remaining, requests.reset_s) == ("requests", 10, 8, 65)
    assert (tokens.name, tokens.limit, tokens.remaining, tokens.reset_s) == ("tokens", 100, 50, 65)


async def test_settling_frees_what_was_not_used_at_once(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    first = await caller.reserve(100)
    assert (await caller.refused(1)).remaining == 0
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
    assert (await caller.refused(50)).limit_name == "requests"
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1)


async def test_use_beyond_the_reservation_is_charged(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(tokens=100))
    assert await ledger.settle(await caller.reserve(10), Spent(130))
    refusal = await caller.refused(1)
    assert (refusal.remaining, refusal.retry_after_s) == (0, 65)
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=130)


async def test_nothing_is_taken_when_one_of_the_limits_refuses(ledger: QuotaLedger) -> None:
    caller = Client(ledger, key_with(requests=10, tokens=100))
    refusal = await caller.refused(101)
    assert (refusal.limit_name, refusal.requested, refusal.limit) == ("tokens", 101, 100)
    assert refusal.retry_after_s is None
    assert [limit.remaining for limit in refusal.limits] == [10, 100]
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals()


async def test_the_limit_that_refuses_for_longest_speaks(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(requests=2, tokens=100))
    await caller.reserve(10)
    clock.now += 20
    await caller.reserve(85)
    refusal = await caller.refused(50)
    assert (refusal.limit_name, refusal.retry_after_s) == ("tokens", 65)
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


async def test_orphans_expire_and_only_their_request_counts(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(requests=100, tokens=100))
    orphan = await caller.reserve(100, ttl_s=10)
    clock.now += 9.9
    await caller.refused(1)
    clock.now += 0.2
    assert [limit.remaining for limit in (await caller.reserve(100)).limits] == [98, 0]
    assert not await ledger.settle(orphan, Spent(50))
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=2, open=1, reserved=100, expired=1
    )


async def test_many_orphans_are_settled_in_bounded_steps(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Client(ledger, key_with(tokens=10_000))
    await asyncio.gather(*(caller.reserve(10, ttl_s=5) for _ in range(200)))
    clock.now += 6
    await caller.reserve(1)
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(
        requests=201, open=1, reserved=1, expired=200
    )


async def test_a_reservation_past_its_time_still_settles_until_it_is_reaped(
    ledger: QuotaLedger, clock: Clock
) -> None:
    caller = Client(ledger, key_with(tokens=100))
    reservation = await caller.reserve(100, ttl_s=5)
    clock.now += 6
    assert await ledger.settle(reservation, Spent(70))
    assert await ledger.totals(caller.key.tenant, caller.key.id) == Totals(requests=1, tokens=70)


async def test_the_same_reservation_twice_is_taken_once(ledger: QuotaLedger) -> None:
    key = key_with(requests=1, tokens=50)
    first = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same", ttl_s=60)
    again = await ledger.reserve(key, Demand("m", 50, 0), reservation_id="same", ttl_s=60)
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
    orphan = await ledger.reserve(key, Demand("m", 9, 0), reservation_id="r", ttl_s=5, record=b"orphan")
    clock.now += 6
    assert (await ledger.totals(key.tenant, key.id)).expired == 1
    assert not await ledger.settle(orphan, Spent(3), b"too late")
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
        await ledger.reserve(
            key, Demand("m", 10, 0), reservation_id="r", ttl_s=60
        ) if key.id == "k1" else None
    for key in keys:
        expected = Totals(requests=1, open=1, reserved=10) if key.id == "k1" else Totals()
        assert await ledger.totals(key.tenant, key.id) == expected
    with pytest.raises(InvalidName, match="tenant"):
        await ledger.reserve(Caller("a}:{b", "k"), Demand("m", 1, 0), reservation_id="r", ttl_s=1)


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
        asyncio.ensure_future(ledger.reserve(key, Demand("m", 10, 0), reservation_id=f"r{i}", ttl_s=600))
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
            reservation = await ledger.reserve(
                key, Demand("m", tokens, 0), reservation_id=f"r{number}", ttl_s=600
            )
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


@pytest.mark.parametrize("wait", [None, 12.5])
def test_the_refusal_explains_itself_and_survives_pickling(wait: float | None) -> None:
    error = QuotaExceeded("tokens", 100, 20, 50, wait)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.limit, copy.remaining, copy.requested, copy.retry_after_s) == (100, 20, 50, wait)
    assert "50" in str(error)
    assert ("12.5 s" in str(error)) == (wait is not None)


@dataclass
class Admission:
    """One admitted call, as the reference model sees it."""

    reservation: Reservation
    at: float
    charged: int
    open: bool = True


class QuotaMachine(RuleBasedStateMachine):
    """Any order of calls, with a clock that may step back, against a list of what was admitted.

    The model keeps true elapsed time: the clock's steps back are not in it. Nothing is ever charged beyond
    its reservation here, so in no 60 s of true time may more than the limit be admitted; and nothing may be
    held for more than 65 s and the steps back.
    """

    LIMITS = Limits(requests_per_minute=6, tokens_per_minute=100)
    open_store: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.open_store()
        self.clock = Clock()
        self.elapsed = 0.0
        self.stepped_back = 0.0
        self.key = Caller("acme", "k1", allowance=Allowance(self.LIMITS))
        self.ledger = QuotaLedger(self.store, clock=self.clock)
        self.admitted: list[Admission] = []
        self.released = 0
        self.runner.run(self.store.execute("FLUSHALL"))

    @rule(tokens=st.integers(0, 120))
    def reserve(self, tokens: int) -> None:
        name = f"r{len(self.admitted) + self.released}"
        call = self.ledger.reserve(self.key, Demand("m", tokens, 0), reservation_id=name, ttl_s=10_000)
        try:
            reservation = self.runner.run(call)
        except QuotaExceeded:
            spent, calls = self.within(65 + self.stepped_back)
            assert spent + tokens > 100 or calls + 1 > 6
        else:
            spent, calls = self.within(60)
            assert spent + tokens <= 100
            assert calls + 1 <= 6
            self.admitted.append(Admission(reservation, self.elapsed, tokens))

    def within(self, seconds: float) -> tuple[int, int]:
        """Tokens and calls of the last `seconds`."""
        recent = [a for a in self.admitted if a.at > self.elapsed - seconds - 0.002]
        return sum(a.charged for a in recent), len(recent)

    @precondition(lambda self: any(a.open for a in self.admitted))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        admission = data.draw(st.sampled_from([a for a in self.admitted if a.open]))
        used = data.draw(st.integers(0, admission.reservation.granted.tokens))
        assert self.runner.run(self.ledger.settle(admission.reservation, Spent(used)))
        admission.charged, admission.open = used, False

    @precondition(lambda self: any(a.open for a in self.admitted))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        admission = data.draw(st.sampled_from([a for a in self.admitted if a.open]))
        assert self.runner.run(self.ledger.release(admission.reservation))
        self.admitted.remove(admission)
        self.released += 1

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.elapsed += seconds

    @rule(seconds=st.floats(0, 300))
    def step_back(self, seconds: float) -> None:
        self.clock.now -= seconds
        self.stepped_back += seconds

    @invariant()
    def ledger_is_exact(self) -> None:
        opened = [a for a in self.admitted if a.open]
        assert self.runner.run(self.ledger.totals(self.key.tenant, self.key.id)) == Totals(
            requests=len(self.admitted),
            open=len(opened),
            reserved=sum(a.charged for a in opened),
            tokens=sum(a.charged for a in self.admitted if not a.open),
        )

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()


def test_any_order_of_calls_and_clock_steps(store_url: str) -> None:
    class Machine(QuotaMachine):
        @staticmethod
        def open_store() -> Store:
            return Store.connect(store_url, timeout_s=5)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
