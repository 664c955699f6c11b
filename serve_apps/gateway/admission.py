"""A call's tokens and money, reserved before it and settled after it exactly once, whatever its end.

    ticket = await admission.reserve(...)          RateLimited headers, or QuotaExceeded
    with ticket.charged(meter):                    the call runs inside; the store hears of it now and then
        ...
    done             ─► settle what the engine counted
    cut off          ─► settle what the meter owes (deadline, client gone, server stopping)
    caller's mistake ─► settle nothing: the request counts, no token does
    our failure      ─► release, if nothing had come back yet; else settle what had

Settling runs beside the response: no client waits for it, and nothing that cancels a request cancels it.
Until it has gone through, the reservation is held on to, with what it is to be charged.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import structlog

from cluster.errors import ClusterError, DeadlineExceeded, InvalidCall
from runtime.errors import InvalidInputs
from runtime.store.errors import StoreError, StoreOut, StoreUnavailable
from serve_apps.accounting.model import CallEnd
from serve_apps.gateway.bill import UNBILLED, Bill
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.errors import ClientGone, Header, RateLimited
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.metering import Meter
from serve_apps.gateway.quotas import Observed, QuotaLedger, Reservation
from serve_apps.gateway.rate_headers import limit_headers
from serve_apps.gateway.refusals import QuotaExceeded

RENEW_S: Final = 4.0
"""How often open reservations are held on to: three times in a lease."""
LOOK_S: Final = 0.5
"""How often a gateway looks for reservations that have expired."""
SETTLE_FOR_S: Final = 600.0
"""How long a settlement is tried: longer than a store is out."""
SETTLED_AT_ONCE: Final = 64
"""Of those that have to be tried again: all that an outage left at the same time would hold up new calls."""
AGAIN_AFTER_S: Final = 0.1
"""Between two tries, where the store answers and yet does not do it; twice as long each time."""
LONGEST_AGAIN_S: Final = 2.0
GIVE_BACK_AFTER_S: Final = 1.0
MAX_UNTOLD: Final = 16_384
"""Settlements that may wait for a store that is out; then nothing more is admitted without it."""
MAX_UNHEARD: Final = 1000
"""Reservations without a reply that are given back at a time; others expire."""
HOLD_MARGIN_S: Final = 60.0
"""How long beyond its call's time a reservation is held on to: one that nobody closes is no leak."""
METERS_AT_ONCE: Final = 16
"""Meters read in one turn of the event loop: some count the tokens of all that was said."""

_log = structlog.get_logger(__name__)


class Admission:
    """Reserves quota, and owns what is still to be settled."""

    def __init__(self, ledger: QuotaLedger, local: LocalShare | None = None) -> None:
        """`local` admits while the store is out; without it nothing is admitted then."""
        self._ledger = ledger
        self._local = local
        self._open: dict[str, Ticket] = {}
        """Not settled yet, by reservation id."""
        self._settling: set[asyncio.Future[Any]] = set()
        self._again = asyncio.Semaphore(SETTLED_AT_ONCE)
        self._unheard = 0

    async def reserve(self, caller: Caller, call_id: str, demand: Demand, bill: Bill = UNBILLED) -> Ticket:
        """Takes one request, and what it may come to, from the caller's limits.

        Raises `RateLimited`, `StoreUnavailable`.
        """
        record = bill.record("expired", Spent(0))
        try:
            reservation = await self._ledger.reserve(caller, demand, reservation_id=call_id, record=record)
        except QuotaExceeded as refusal:
            raise _refused(refusal) from None
        except StoreUnavailable as error:
            if self._local is not None and len(self._settling) < MAX_UNTOLD:
                return self._reserve_here(self._local, caller, call_id, demand, bill)
            # It may have been taken all the same, and would hold the caller's tokens until it expires.
            if self._unheard < MAX_UNHEARD and not isinstance(error, StoreOut):
                self._background(self._give_back(caller, call_id, demand))
            raise
        ticket = self._open[call_id] = Ticket(self, reservation, bill)
        return ticket

    def _reserve_here(
        self, local: LocalShare, caller: Caller, call_id: str, demand: Demand, bill: Bill
    ) -> Ticket:
        try:
            reservation = local.reserve(caller, demand, call_id, asyncio.get_running_loop().time())
        except QuotaExceeded as refusal:
            raise _refused(refusal) from None
        ticket = self._open[call_id] = Ticket(self, reservation, bill, local_caller=caller)
        return ticket

    def close(self, ticket: Ticket) -> None:
        """Settles a call that has ended, or releases it, beside whatever goes on."""
        if self._local is not None and ticket.local_caller is not None:
            requests = 0 if ticket.owed is None else 1
            self._local.close(ticket.reservation.reservation_id, ticket.spent, requests)
            self._background(self._close(ticket))
            return
        try:
            reply = self._closing(ticket)
        except (StoreUnavailable, ValueError):
            self._background(self._close(ticket))
        else:
            # Mostly it goes through at once: a task of its own would cost as much as all the rest.
            self._settling.add(reply)
            reply.add_done_callback(partial(self._closed, ticket))

    async def hold(self) -> None:
        """Renews what is open, until it is cancelled. Whether the store is out is told elsewhere."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self.renew()
            except StoreUnavailable:
                continue
            except StoreError as error:
                _log.warning("reservations_not_renewed", error=type(error).__name__)

    async def look(self) -> None:
        """Settles what gateways have left behind that are gone, until it is cancelled.

        After the store was out, gateways that live are given the time to renew what they have open.
        """
        loop = asyncio.get_running_loop()
        not_before = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if loop.time() < not_before:
                    continue
                settled = await self._ledger.settle_due()
            except StoreError:
                not_before = loop.time() + 2 * RENEW_S
            else:
                if settled:
                    _log.warning("orphans_settled", count=settled)

    async def renew(self) -> None:
        """Holds on to all that is open, and tells what it has come to. Raises `StoreError`."""
        observed: dict[str, list[Observed]] = defaultdict(list)
        now = asyncio.get_running_loop().time()
        for number, (call_id, ticket) in enumerate(list(self._open.items())):
            if ticket.overdue(now):
                self._open.pop(call_id, None)
                continue
            if number % METERS_AT_ONCE == METERS_AT_ONCE - 1:
                await asyncio.sleep(0)
            if call_id in self._open:
                observed[ticket.reservation.tenant].append(ticket.observed())
        for tenant, several in observed.items():
            lost = await self._ledger.renew(tenant, several)
            gone = [
                call_id for call_id in lost if call_id in self._open and not self._open[call_id].local_caller
            ]
            if gone:
                _log.warning("reservations_expired", tenant=tenant, count=len(gone))

    async def drain(self, seconds: float) -> None:
        """Waits, at most so long, until all is settled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._settling:
                    await asyncio.wait(self._settling)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _give_back(self, caller: Caller, call_id: str, demand: Demand) -> None:
        """Releases what a reserve without a reply may have taken; if it took nothing, nothing happens."""
        self._unheard += 1
        try:
            await asyncio.sleep(GIVE_BACK_AFTER_S)  # the lost command may still be on its way
            with suppress(StoreError, TimeoutError):  # it expires
                async with asyncio.timeout(SETTLE_FOR_S):
                    await self._ledger.answering()
                await self._ledger.release(Reservation(call_id, caller.tenant, caller.id, demand, limits=()))
        finally:
            self._unheard -= 1

    def _closing(self, ticket: Ticket) -> asyncio.Future[Any]:
        """The future reply of the store. Raises `StoreUnavailable`."""
        if ticket.owed is None:
            return self._ledger.releasing(ticket.reservation, ticket.record)
        return self._ledger.settling(ticket.reservation, ticket.spent, ticket.record)

    def _closed(self, ticket: Ticket, reply: asyncio.Future[Any]) -> None:
        self._settling.discard(reply)
        if reply.cancelled() or reply.exception() is not None:
            self._background(self._close(ticket, reply))
        else:
            self._open.pop(ticket.reservation.reservation_id, None)

    async def _close(self, ticket: Ticket, first: Awaitable[Any] | None = None) -> None:
        """Tries until it has gone through. `first` is a try that is made already."""
        try:
            await self._close_in_time(ticket, first or self._close_once(ticket))
        except (StoreError, TimeoutError) as error:
            # It expires, and is charged what was seen of it.
            _log.error(
                "settlement_lost",
                reservation_id=ticket.reservation.reservation_id,
                caller_id=ticket.reservation.caller_id,
                owed=ticket.owed,
                error=type(error).__name__,
            )
        finally:
            self._open.pop(ticket.reservation.reservation_id, None)

    async def _close_in_time(self, ticket: Ticket, first: Awaitable[Any]) -> None:
        try:
            await first
        except StoreUnavailable:
            async with asyncio.timeout(SETTLE_FOR_S), self._again:
                await self._close_at_last(ticket)

    async def _close_at_last(self, ticket: Ticket) -> None:
        """Asks nothing of a store that is known to be out."""
        wait_s = AGAIN_AFTER_S
        while True:
            await self._ledger.answering()
            try:
                await self._close_once(ticket)
            except StoreUnavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_AGAIN_S)
            else:
                return

    async def _close_once(self, ticket: Ticket) -> None:
        reservation = ticket.reservation
        if ticket.local_caller is None:
            await self._closing(ticket)
        elif ticket.owed is None:
            await self._ledger.release(reservation, ticket.record)
        else:
            await self._ledger.charge(
                ticket.local_caller,
                reservation.granted.model,
                reservation.reservation_id,
                ticket.spent,
                ticket.record,
            )


class Ticket:
    """One admitted call."""

    __slots__ = (
        "_admission",
        "_bill",
        "_ended",
        "_meter",
        "_until",
        "local_caller",
        "owed",
        "record",
        "reservation",
        "spent",
    )

    def __init__(
        self,
        admission: Admission,
        reservation: Reservation,
        bill: Bill,
        local_caller: Caller | None = None,
    ) -> None:
        self.local_caller = local_caller
        """Who called, where the call was admitted without the ledger."""
        self._admission = admission
        self._bill = bill
        self._meter: Meter | None = None
        self._ended = False
        seconds = reservation.granted.seconds
        self._until = asyncio.get_running_loop().time() + seconds + HOLD_MARGIN_S
        self.reservation = reservation
        self.owed: int | None = None
        """Tokens that the call has come to, once it has ended; None for one that is not charged at all."""
        self.spent = Spent(0)
        """What it is charged, once it has ended."""
        self.record = b""
        """What is told of it, once it has ended."""

    @property
    def granted(self) -> Demand:
        """What the call may come to."""
        return self.reservation.granted

    def headers(self) -> list[Header]:
        return limit_headers(self.reservation.limits)

    @contextmanager
    def charged(self, meter: Meter) -> Iterator[None]:
        """Closes the reservation at the end of the block. Use once."""
        self._meter = meter
        try:
            yield
        except BaseException as error:
            self.close(meter, error)
            raise
        self.close(meter)

    def close(self, meter: Meter, error: BaseException | None = None) -> None:
        """Settles what is owed after a call that has ended, with an error or not. Use once."""
        self._ended = True
        self.owed = meter.owed if error is None else _owed_after(error, meter, self.granted.tokens)
        self.spent = self._bill.spent(self.owed or 0)
        end = _end_of(error, self.owed)
        if end == "cut" and meter.usage is not None:  # it left behind the last word
            end = "done"
        self.record = self._bill.record(end, self.spent)
        self._admission.close(self)

    def observed(self) -> Observed:
        """What the call has come to so far."""
        if self._ended:
            return Observed(self.reservation.reservation_id, self.spent, self.record)
        owed = 0 if self._meter is None else self._meter.owed
        spent = self._bill.spent(min(owed, self.granted.tokens))
        return Observed(self.reservation.reservation_id, spent, self._bill.record("expired", spent))

    def overdue(self, now: float) -> bool:
        """Whether its call should have ended long ago and has not. `now` is the event loop's time."""
        return not self._ended and now > self._until


def _owed_after(error: BaseException, meter: Meter, reserved: int) -> int | None:
    if meter.usage is not None:
        return meter.owed
    if isinstance(error, InvalidCall | InvalidInputs):
        return min(meter.owed, reserved) if meter.begun else 0
    ours = isinstance(error, ClusterError) and not isinstance(error, DeadlineExceeded)
    if ours and not meter.begun:
        return None
    return min(meter.owed, reserved)


def _end_of(error: BaseException | None, owed: int | None) -> CallEnd:
    match error:
        case None:
            return "done"
        case InvalidCall() | InvalidInputs():
            return "refused"
        case asyncio.CancelledError() | ClientGone() | DeadlineExceeded() | TimeoutError() if (
            owed is not None
        ):
            return "cut"
    return "failed"


def _refused(refusal: QuotaExceeded) -> RateLimited:
    headers = limit_headers(refusal.limits)
    if refusal.retry_after_s is None:
        # OpenAI's SDKs retry a 429 unless told not to.
        return RateLimited(
            f"{refusal} Make it smaller.",
            code="request_exceeds_limit",
            headers=[*headers, (b"x-should-retry", b"false")],
        )
    return RateLimited(str(refusal), retry_after_s=refusal.retry_after_s, headers=headers)
