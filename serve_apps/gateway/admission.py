"""A call's tokens, reserved before it and settled after it exactly once, whatever its end.

    ticket = await admission.reserve(...)          RateLimited headers, or QuotaExceeded
    with ticket.charged(meter):                    the call runs inside
        ...
    done             ─► settle what the engine counted
    cut off          ─► settle what the meter owes (deadline, client gone, server stopping)
    caller's mistake ─► settle nothing: the request counts, no token does
    our failure      ─► release, if nothing had come back yet; else settle what had

Settling runs beside the response: no client waits for it, and nothing that cancels a request cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import stamina
import structlog

from cluster.errors import ClusterError, DeadlineExceeded, InvalidCall
from runtime.errors import InvalidInputs
from runtime.store.errors import StoreError, StoreUnavailable
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.errors import Header, RateLimited
from serve_apps.gateway.metering import Meter
from serve_apps.gateway.quotas import LimitState, QuotaExceeded, QuotaLedger, Reservation

SETTLE_MARGIN_S: Final = 60.0
"""How long beyond its deadline a reservation lives, for the retries of its settlement."""

GIVE_BACK_AFTER_S: Final = 1.0

_settle_again = stamina.AsyncRetryingCaller(
    attempts=8, timeout=SETTLE_MARGIN_S / 2, wait_initial=0.1, wait_max=5.0
).on(StoreUnavailable)

_log = structlog.get_logger(__name__)


class Admission:
    """Reserves quota, and owns what is still to be settled."""

    def __init__(self, ledger: QuotaLedger) -> None:
        self._ledger = ledger
        self._settling: set[asyncio.Task[None]] = set()

    async def reserve(self, caller: Caller, call_id: str, demand: Demand) -> Ticket:
        """Takes one request, and what it may come to, from the caller's limits.

        Raises `RateLimited`, `StoreUnavailable`.
        """
        try:
            reservation = await self._ledger.reserve(
                caller, demand, reservation_id=call_id, ttl_s=demand.seconds + SETTLE_MARGIN_S
            )
        except QuotaExceeded as refusal:
            raise _refused(refusal) from None
        except StoreUnavailable:
            # It may have been taken all the same, and would hold the key's tokens until it expires.
            self._background(self._give_back(caller, call_id, demand))
            raise
        return Ticket(self, reservation)

    def close(self, reservation: Reservation, owed: int | None) -> None:
        """Settles what is owed, or with None releases, in a task of its own."""
        self._background(self._close(reservation, owed))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def drain(self, seconds: float) -> None:
        """Waits, at most so long, until all is settled."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=seconds)

    async def _give_back(self, caller: Caller, call_id: str, demand: Demand) -> None:
        """Releases what a reserve without a reply may have taken; if it took nothing, nothing happens."""
        await asyncio.sleep(GIVE_BACK_AFTER_S)  # the lost command may still be on its way
        unheard = Reservation(call_id, caller.tenant, caller.id, demand, limits=())
        await self._close(unheard, None)

    async def _close(self, reservation: Reservation, owed: int | None) -> None:
        try:
            await self._close_in_time(reservation, owed)
        except StoreError as error:
            # The reservation expires: its request counts, its tokens are lost to the ledger.
            _log.error(
                "settlement_lost",
                reservation_id=reservation.reservation_id,
                caller_id=reservation.caller_id,
                owed=owed,
                error=type(error).__name__,
            )

    async def _close_in_time(self, reservation: Reservation, owed: int | None) -> None:
        try:
            await self._close_once(reservation, owed)
        except StoreUnavailable:
            await _settle_again(self._close_once, reservation, owed)

    async def _close_once(self, reservation: Reservation, owed: int | None) -> None:
        if owed is None:
            await self._ledger.release(reservation)
        else:
            await self._ledger.settle(reservation, Spent(owed))


class Ticket:
    """One admitted call."""

    __slots__ = ("_admission", "_reservation", "owed")

    def __init__(self, admission: Admission, reservation: Reservation) -> None:
        self._admission = admission
        self._reservation = reservation
        self.owed: int | None = None
        """Tokens that the call has come to, once it has ended; None for one that is not charged at all."""

    @property
    def granted(self) -> Demand:
        """What the call may come to."""
        return self._reservation.granted

    def headers(self) -> list[Header]:
        return limit_headers(self._reservation.limits)

    @contextmanager
    def charged(self, meter: Meter) -> Iterator[None]:
        """Closes the reservation at the end of the block. Use once."""
        try:
            yield
        except BaseException as error:
            self.close(meter, error)
            raise
        self.close(meter)

    def close(self, meter: Meter, error: BaseException | None = None) -> None:
        """Settles what is owed after a call that has ended, with an error or not. Use once."""
        self.owed = meter.owed if error is None else _owed_after(error, meter, self.granted.tokens)
        self._admission.close(self._reservation, self.owed)


def limit_headers(limits: Sequence[LimitState]) -> list[Header]:
    """`x-ratelimit-limit-*`, `-remaining-*` and `-reset-*` (as `12.3s`) of each limit."""
    headers: list[Header] = []
    for state in limits:
        unit = state.name.encode()
        headers += (
            (b"x-ratelimit-limit-" + unit, b"%d" % state.limit),
            (b"x-ratelimit-remaining-" + unit, b"%d" % state.remaining),
            (b"x-ratelimit-reset-" + unit, b"%.1fs" % state.reset_s),
        )
    return headers


def _owed_after(error: BaseException, meter: Meter, reserved: int) -> int | None:
    if meter.usage is not None:
        return meter.owed
    if isinstance(error, InvalidCall | InvalidInputs):
        return min(meter.owed, reserved) if meter.begun else 0
    ours = isinstance(error, ClusterError) and not isinstance(error, DeadlineExceeded)
    if ours and not meter.begun:
        return None
    return min(meter.owed, reserved)


def _refused(refusal: QuotaExceeded) -> RateLimited:
    headers = limit_headers(refusal.limits)
    if refusal.retry_after_s is None:
        # OpenAI's SDKs retry a 429 unless told not to.
        return RateLimited(
            f"The request needs {refusal.requested} {refusal.limit_name}, more than the {refusal.limit} a "
            "minute that this API key has: it can never be admitted. Make it smaller.",
            code="request_exceeds_limit",
            headers=[*headers, (b"x-should-retry", b"false")],
        )
    return RateLimited(
        f"Rate limit reached: {refusal.limit} {refusal.limit_name} a minute, of which {refusal.remaining} "
        f"are left and {refusal.requested} are needed. Try again in {refusal.retry_after_s:.1f} s.",
        retry_after_s=refusal.retry_after_s,
        headers=headers,
    )
