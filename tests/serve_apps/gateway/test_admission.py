"""What a call owes at each of its possible ends, and that it is settled exactly once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.errors import ClusterError, DeadlineExceeded, EngineFailed, InvalidCall, Overloaded, ReplicaLost
from cluster.interface import Batch
from cluster.messages import Usage
from runtime.store.client import Store
from runtime.store.errors import CommandFailed, StoreUnavailable
from serve_apps.accounting.model import CallEnd
from serve_apps.gateway import admission as admission_module
from serve_apps.gateway.admission import HOLD_MARGIN_S, Admission
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.errors import ClientGone, RateLimited
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import LEASE_S, QuotaLedger, Totals, records_key
from tests.serve_apps.conftest import eventually

KEY = Caller("acme", "k1", allowance=Allowance(Limits(requests_per_minute=10, tokens_per_minute=100)))


class FixedMeter:
    """A meter that reads what it is told."""

    def __init__(self, owed: int, *, begun: bool, usage: Usage | None = None) -> None:
        self.owed = owed
        self.begun = begun
        self.usage = usage

    def observe(self, batch: Batch) -> None:
        """Nothing to count."""


async def ended(store: Store, meter: FixedMeter, error: BaseException | None) -> Totals:
    """The ledger after a call of 50 reserved tokens that ended so."""
    ledger = QuotaLedger(store)
    admission = Admission(ledger)
    ticket = await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=10.0))
    with suppress(type(error) if error is not None else ()), ticket.charged(meter):
        if error is not None:
            raise error
    await admission.drain(60)
    return await ledger.totals(KEY.tenant, KEY.id)


@pytest.mark.parametrize(
    ("error", "meter", "requests", "tokens"),
    [
        (None, FixedMeter(12, begun=True, usage=Usage(2, 10)), 1, 12),
        (ClientGone(), FixedMeter(7, begun=True), 1, 7),
        (ClientGone(), FixedMeter(99, begun=True), 1, 50),
        (ClientGone(), FixedMeter(12, begun=True, usage=Usage(2, 10)), 1, 12),
        (asyncio.CancelledError(), FixedMeter(7, begun=False), 1, 7),
        (DeadlineExceeded("late"), FixedMeter(7, begun=False), 1, 7),
        (InvalidCall("no"), FixedMeter(7, begun=False), 1, 0),
        (Overloaded("full"), FixedMeter(7, begun=False), 0, 0),
        (ReplicaLost("gone"), FixedMeter(7, begun=False), 0, 0),
        (EngineFailed("broke"), FixedMeter(7, begun=True), 1, 7),
        (ClusterError("unknown"), FixedMeter(7, begun=False), 0, 0),
        (RuntimeError("ours"), FixedMeter(7, begun=False), 1, 7),
    ],
)
async def test_ends(
    one_store: Store, error: BaseException | None, meter: FixedMeter, requests: int, tokens: int
) -> None:
    totals = await ended(one_store, meter, error)
    assert (totals.requests, totals.tokens, totals.open, totals.reserved) == (requests, tokens, 0, 0)


async def test_refusals_carry_every_limit(one_store: Store) -> None:
    admission = Admission(QuotaLedger(one_store))
    ticket = await admission.reserve(KEY, "call-1", Demand("m", 80, 0, seconds=10.0))
    assert dict(ticket.headers())[b"x-ratelimit-remaining-tokens"] == b"20"
    with pytest.raises(RateLimited) as caught:
        await admission.reserve(KEY, "call-2", Demand("m", 30, 0, seconds=10.0))
    headers = dict(caught.value.headers())
    assert headers[b"x-ratelimit-limit-requests"] == b"10"
    assert headers[b"x-ratelimit-remaining-tokens"] == b"20"
    assert headers[b"ratelimit"].startswith(b'"key-tokens-minute";r=20;t=')
    assert int(headers[b"retry-after"]) > 1
    with ticket.charged(FixedMeter(0, begun=True)):
        pass
    await admission.drain(60)


async def test_a_settlement_that_cannot_be_is_logged(
    one_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> asyncio.Future[bool]:
        failed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        failed.set_exception(CommandFailed("out of order"))
        return failed

    monkeypatch.setattr(QuotaLedger, "settling", broken)
    with capture_logs() as logged:
        totals = await ended(one_store, FixedMeter(5, begun=True), None)
    assert totals.open == 1
    assert (logged[0]["event"], logged[0]["owed"]) == ("settlement_lost", 5)


async def test_a_reservation_whose_reply_was_lost_is_given_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = QuotaLedger(store)
    reserve = ledger.reserve

    async def taken_but_unheard(*args: Any, **kwargs: Any) -> None:
        await reserve(*args, **kwargs)
        raise StoreUnavailable("no answer in time")

    monkeypatch.setattr(ledger, "reserve", taken_but_unheard)
    admission = Admission(ledger)
    with pytest.raises(StoreUnavailable):
        await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=10.0))
    assert (await ledger.totals(KEY.tenant, KEY.id)).open == 1
    await admission.drain(60)
    assert await ledger.totals(KEY.tenant, KEY.id) == Totals()


class Told:
    """A bill that writes down what it is asked."""

    def spent(self, tokens: int) -> Spent:
        return Spent(tokens, 10 * tokens)

    def record(self, end: CallEnd, spent: Spent) -> bytes:
        return f"{end} {spent.tokens} {spent.nanodollars}".encode()


async def told(store: Store) -> list[bytes]:
    return [fields[1] for _, fields in await store.execute("XRANGE", records_key("acme"), "-", "+")]


@pytest.mark.parametrize(
    ("error", "meter", "record"),
    [
        (None, FixedMeter(12, begun=True), b"done 12 120"),
        (ClientGone(), FixedMeter(7, begun=True), b"cut 7 70"),
        (asyncio.CancelledError(), FixedMeter(7, begun=False), b"cut 7 70"),
        (DeadlineExceeded("late"), FixedMeter(7, begun=False), b"cut 7 70"),
        (InvalidCall("no"), FixedMeter(7, begun=False), b"refused 0 0"),
        (Overloaded("full"), FixedMeter(7, begun=False), b"failed 0 0"),
        (EngineFailed("broke"), FixedMeter(7, begun=True), b"failed 7 70"),
    ],
)
async def test_each_end_is_recorded_with_what_it_is_charged(
    one_store: Store, error: BaseException | None, meter: FixedMeter, record: bytes
) -> None:
    admission = Admission(QuotaLedger(one_store))
    ticket = await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=10.0), Told())
    with suppress(type(error) if error is not None else ()), ticket.charged(meter):
        if error is not None:
            raise error
    await admission.drain(60)
    assert await told(one_store) == [record]


async def test_an_orphan_is_charged_what_its_gateway_last_saw(one_store: Store) -> None:
    now = 1_900_000_000.0
    admission = Admission(QuotaLedger(one_store, clock=lambda: now))
    ticket = await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=10.0), Told())
    await admission.reserve(KEY, "call-2", Demand("m", 20, 0, seconds=10.0), Told())
    meter = FixedMeter(7, begun=True)
    with ticket.charged(meter):
        await admission.renew()
        meter.owed = 9
        await admission.renew()
        now += LEASE_S
        other = QuotaLedger(one_store, clock=lambda: now)
        assert await other.settle_due() == 2
        assert sorted(await told(one_store)) == [b"expired 0 0", b"expired 9 90"]
        assert await other.totals("acme", "k1") == Totals(requests=2, tokens=9, expired=2, nanodollars=90)
        with capture_logs() as logged:
            await admission.renew()
        assert logged[0]["event"] == "reservations_expired"
    await admission.drain(60)
    assert await other.totals("acme", "k1") == Totals(requests=2, tokens=9, expired=2, nanodollars=90)


async def test_a_call_that_ended_is_held_on_to_until_it_is_settled(
    one_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And charged in full if the gateway dies meanwhile."""
    now = 1_900_000_000.0
    ledger = QuotaLedger(one_store, clock=lambda: now)
    unreachable = asyncio.Event()
    settling = ledger.settling

    async def late(*args: Any) -> bool:
        await unreachable.wait()
        return await settling(*args)

    monkeypatch.setattr(ledger, "settling", lambda *args: asyncio.ensure_future(late(*args)))
    admission = Admission(ledger)
    ticket = await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=10.0), Told())
    with ticket.charged(FixedMeter(31, begun=True)):
        pass
    now += LEASE_S - 1
    await admission.renew()
    now += LEASE_S - 1
    assert await ledger.settle_due() == 0
    now += 1
    assert await ledger.settle_due() == 1
    unreachable.set()
    await admission.drain(60)
    assert await ledger.totals("acme", "k1") == Totals(requests=1, tokens=31, expired=1, nanodollars=310)


async def test_what_nobody_closes_is_not_held_for_ever(one_store: Store) -> None:
    now = 1_900_000_000.0
    ledger = QuotaLedger(one_store, clock=lambda: now)
    admission = Admission(ledger)
    await admission.reserve(KEY, "call-1", Demand("m", 50, 0, seconds=-HOLD_MARGIN_S))
    await admission.renew()
    now += LEASE_S
    assert await ledger.settle_due() == 1


async def test_gateways_renew_and_look_by_themselves(
    one_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "RENEW_S", 0.05)
    monkeypatch.setattr(admission_module, "LOOK_S", 0.05)
    living = Admission(QuotaLedger(one_store, lease_s=60.0))
    dead = Admission(QuotaLedger(one_store, lease_s=0.05))
    held = await living.reserve(KEY, "call-1", Demand("m", 5, 0, seconds=60.0))
    working = [asyncio.create_task(work) for work in (living.hold(), living.look())]
    expiry = ("ZSCORE", "cgh:{acme}:quota:expiry", "call-1")
    first = await one_store.execute(*expiry)
    await dead.reserve(KEY, "call-2", Demand("m", 5, 0, seconds=60.0))
    ledger = QuotaLedger(one_store)

    async def orphan_settled() -> bool:
        return (await ledger.totals("acme", "k1")).expired == 1

    async def renewed() -> bool:
        return float(await one_store.execute(*expiry)) > float(first)

    await eventually(orphan_settled)
    await eventually(renewed)
    for task in working:
        task.cancel()
    with held.charged(FixedMeter(3, begun=True)):
        pass
    await living.drain(60)
    assert await ledger.totals("acme", "k1") == Totals(requests=2, tokens=3, expired=1)
