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
from serve_apps.gateway.admission import Admission
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.errors import ClientGone, RateLimited
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import QuotaLedger, Totals

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
    await admission.drain(5.0)
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
    assert int(headers[b"retry-after"]) > 1
    with ticket.charged(FixedMeter(0, begun=True)):
        pass
    await admission.drain(5.0)


async def test_a_settlement_that_cannot_be_is_logged(
    one_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> bool:
        raise CommandFailed("out of order")

    monkeypatch.setattr(QuotaLedger, "settle", broken)
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
    await admission.drain(5.0)
    assert await ledger.totals(KEY.tenant, KEY.id) == Totals()
