"""Quotas: reserved before a call, settled after it, never over the limit.

    reserve ──► call ──► settle (what was used)      or  release (it never reached a model)
       └── QuotaExceeded                              or  nothing: the reservation expires

Every limit that applies is checked and charged by one script, for all or nothing, on the store's clock, so
any number of gateways may reserve at once. Windows slide and are counted in twelfths, rounded up: in no 60 s
is more admitted than the limit, and what was admitted counts for 60 to 65 s (`runtime/store/lua/quota.lua`).

What a call did not use goes back at once to the time it was taken from. What it used beyond its reservation
(an engine that ignores `max_tokens`) is charged when it settles, limit or no limit. A reservation whose
gateway died expires: its request counts, its tokens do not. When the store is out nothing is admitted.

The clock that counts is the store's. It may step back: time then stands still until it catches up with
itself. A step forward cannot be told from time passing.

    QuotaExceeded
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from runtime.store.client import Reply, Script, ScriptCall, Store, Word
from runtime.store.group_commit import GroupCommit
from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent

MINUTE_S = 60
MAX_TOKENS = 10**9
"""Of one call. Numbers in Lua are doubles: the scripts stay far from where these lose integers."""

LimitName = Literal["requests", "tokens"]

LEASE_S = 15.0
"""How long a reservation lives that nobody renews."""
NOTED_S = 5.0
"""How often a ledger notes that a tenant makes calls."""
MAX_NOTED = 10_000
"""Tenants that a ledger remembers to have noted."""

DUE_TENANTS = "cgh:quota:due"
SEEN_TENANTS = "cgh:quota:seen"
TENANTS_WITH_RECORDS = "cgh:usage:tenants"
"""Sorted set of the tenants that may have records to fold, by when (Unix ms) they last made a call, noted at
least every `NOTED_S` while they do. Whoever folds removes those that made none for long and whose stream is
empty."""

_NOTE = Script("clock", "quota_note")
_RESERVE = Script("clock", "quota", "quota_reserve")
_SETTLE = Script("clock", "quota", "quota_settle")
_TOTALS = Script("clock", "quota", "quota_totals")

_log = logging.getLogger(__name__)


def records_key(tenant: str) -> str:
    """Of the tenant's stream of records: entries with the field `record`, an encoded `CallRecord` each."""
    return tenant_key(tenant, "usage", "records")


class LimitState(msgspec.Struct, frozen=True):
    """A limit as the last decision left it: what the x-ratelimit headers say."""

    name: LimitName
    limit: int
    """Most in any 60 s."""
    remaining: int
    reset_s: float
    """Seconds until all of it is free again, if nothing more is taken."""


class QuotaExceeded(Exception):
    """A limit does not admit the call. Nothing was taken from any limit."""

    def __init__(
        self,
        limit_name: LimitName,
        limit: int,
        remaining: int,
        requested: int,
        retry_after_s: float | None,
        limits: tuple[LimitState, ...] = (),
    ) -> None:
        super().__init__(limit_name, limit, remaining, requested, retry_after_s, limits)
        self.limit_name: LimitName = limit_name
        self.limit = limit
        self.remaining = remaining
        self.requested = requested
        self.retry_after_s = retry_after_s
        """Seconds until the call would be admitted; None if it asks for more than the limit."""
        self.limits = limits
        """All limits of the key, for the response headers."""

    def __str__(self) -> str:
        allowed = f"{self.limit} {self.limit_name} a minute"
        if self.retry_after_s is None:
            return f"the call asks for {self.requested} {self.limit_name}, the key may spend {allowed}"
        return (
            f"the key may spend {allowed}; {self.remaining} are left and the call asks for "
            f"{self.requested}: try again in {self.retry_after_s:.1f} s"
        )


class Reservation(msgspec.Struct, frozen=True):
    """What was taken for one call, until it settles or expires."""

    reservation_id: str
    tenant: str
    caller_id: str
    granted: Demand
    """What was reserved: the demand, its output cut to what was left where it may be."""
    limits: tuple[LimitState, ...]


class Totals(msgspec.Struct, frozen=True):
    """The ledger of a key: exact, and kept for 35 days after its last call."""

    requests: int = 0
    """Admitted, less those given back."""
    open: int = 0
    """Reservations not yet settled, released or expired."""
    reserved: int = 0
    """Tokens that these hold."""
    tokens: int = 0
    """Used, as settled."""
    expired: int = 0
    """Reservations that nobody settled in time."""


class _Limit(NamedTuple):
    name: LimitName
    most: int
    window_key: str
    requested: int


class QuotaLedger:
    """Reserves and settles, in group commit: calls of one turn of the event loop share a round trip, and a
    settlement, which no client waits for, goes along with the next reservation if one comes soon.

    `clock` gives Unix seconds in place of the store's clock. For tests: several gateways agree on none.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] | None = None) -> None:
        self._store = store
        self._commit = GroupCommit(store)
        self._clock = clock
        self._noted: dict[str, float] = {}

    async def reserve(
        self, caller: Caller, demand: Demand, *, reservation_id: str, ttl_s: float, record: bytes = b""
    ) -> Reservation:
        """Takes one request and what it may come to from all limits of `caller`, or from none.

        It must be settled within `ttl_s`; else it expires, and `record`, where it is not empty, is what the
        tenant's stream of records is told of the call. A `reservation_id` that is open already is not taken
        twice. A caller cancelled here leaves nothing taken. Raises `QuotaExceeded`, and `StoreUnavailable`,
        after which it may be taken, and then expires.
        """
        tokens = demand.tokens
        _check_tokens(tokens)
        limits = _limits_of(caller, tokens)
        keys = [
            *_tenant_keys(caller.tenant),
            _ledger_key(caller.tenant, caller.id),
            *(limit.window_key for limit in limits),
        ]
        args: list[Word] = [self._now(), reservation_id, int(ttl_s * 1000), tokens, record]
        for limit in limits:
            args += (limit.most, MINUTE_S * 1000, limit.name[0])
        self._note(caller.tenant)
        reply = await self._commit.run(
            ScriptCall(_RESERVE, keys, args),
            abandoned=lambda reply: self._give_back_unasked(caller.tenant, reservation_id, reply),
        )
        states = _states(limits, reply[1:])
        if not reply[0]:
            raise _refusal(limits, states, [wait for _, wait, _ in reply[1:]])
        return Reservation(reservation_id, caller.tenant, caller.id, demand, states)

    async def settle(self, reservation: Reservation, spent: Spent, record: bytes = b"") -> bool:
        """Charges what was spent, frees the rest, and adds `record`, an encoded `CallRecord`, to the tenant's
        stream of records, all in one step. Goes through even if the caller is cancelled here.

        False, and nothing changes, if the reservation is settled already or has expired; so it may be
        repeated after `StoreUnavailable`, which it raises.
        """
        _check_tokens(spent.tokens)
        return await self._close(reservation.tenant, reservation.reservation_id, spent.tokens, 1, record)

    async def release(self, reservation: Reservation, record: bytes = b"") -> bool:
        """Gives tokens and request back: for a call that, through no doing of the caller, reached no model.

        As `settle` otherwise.
        """
        return await self._close(reservation.tenant, reservation.reservation_id, 0, 0, record)

    async def totals(self, tenant: str, caller_id: str) -> Totals:
        """A caller's ledger, what its tenant let expire settled first. Raises `StoreUnavailable`."""
        keys = [*_tenant_keys(tenant), _ledger_key(tenant, caller_id)]
        return Totals(*await self._store.run(_TOTALS, keys, [self._now()]))

    async def _close(
        self, tenant: str, reservation_id: str, used_tokens: int, requests: int, record: bytes
    ) -> bool:
        reply = self._submit_close(tenant, reservation_id, used_tokens, requests, record)
        return bool(await asyncio.shield(reply))

    def _submit_close(
        self, tenant: str, reservation_id: str, used_tokens: int, requests: int, record: bytes
    ) -> asyncio.Future[Reply]:
        args: list[Word] = [self._now(), reservation_id, used_tokens, requests, record]
        reply = self._commit.submit(ScriptCall(_SETTLE, _tenant_keys(tenant), args), linger=True)
        reply.add_done_callback(lambda done: _warn_if_lost(reservation_id, done))
        return reply

    def _note(self, tenant: str) -> None:
        """Notes that the tenant makes calls, unless it was done just now; it goes along with the next call.

        The sets span all tenants, so they are no keys of the scripts that touch a tenant's own.
        """
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._noted.get(tenant, 0.0):
            return
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted[tenant] = loop_time + NOTED_S
        args: list[Word] = [self._now(), tenant, int(LEASE_S * 1000)]
        keys = [DUE_TENANTS, SEEN_TENANTS, TENANTS_WITH_RECORDS]
        noted = self._commit.submit(ScriptCall(_NOTE, keys, args), linger=True)
        noted.add_done_callback(lambda done: self._noted_or_not(tenant, done))

    def _noted_or_not(self, tenant: str, reply: asyncio.Future[Reply]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self._noted.pop(tenant, None)

    def _give_back_unasked(self, tenant: str, reservation_id: str, reply: Reply) -> None:
        """The caller left between asking and hearing: if it was admitted, undo that."""
        if reply[0]:
            self._submit_close(tenant, reservation_id, 0, 0, b"")

    def _now(self) -> Word:
        return "" if self._clock is None else int(self._clock() * 1000)


def _warn_if_lost(reservation_id: str, reply: asyncio.Future[Reply]) -> None:
    if not reply.cancelled() and (error := reply.exception()) is not None:
        _log.warning("reservation %s is left to expire unless settled again: %s", reservation_id, error)


def _check_tokens(tokens: int) -> None:
    if not 0 <= tokens <= MAX_TOKENS:
        raise ValueError(f"tokens must be between 0 and {MAX_TOKENS}, not {tokens}")


def _limits_of(caller: Caller, tokens: int) -> list[_Limit]:
    wanted: tuple[tuple[LimitName, int | None, int], ...] = (
        ("requests", caller.allowance.limits.requests_per_minute, 1),
        ("tokens", caller.allowance.limits.tokens_per_minute, tokens),
    )
    return [
        _Limit(name, most, tenant_key(caller.tenant, "quota", "window", "key", caller.id, name), requested)
        for name, most, requested in wanted
        if most is not None
    ]


def _states(limits: Sequence[_Limit], replies: Sequence[Sequence[int]]) -> tuple[LimitState, ...]:
    return tuple(
        LimitState(limit.name, limit.most, remaining, full_ms / 1000)
        for limit, (remaining, _, full_ms) in zip(limits, replies, strict=True)
    )


def _refusal(
    limits: Sequence[_Limit], states: tuple[LimitState, ...], waits_ms: Sequence[int]
) -> QuotaExceeded:
    """The limit that refuses for longest speaks for all."""
    worst = max(range(len(limits)), key=lambda i: float("inf") if waits_ms[i] < 0 else waits_ms[i])
    wait_ms = waits_ms[worst]
    return QuotaExceeded(
        limit_name=limits[worst].name,
        limit=limits[worst].most,
        remaining=states[worst].remaining,
        requested=limits[worst].requested,
        retry_after_s=None if wait_ms < 0 else wait_ms / 1000,
        limits=states,
    )


def _tenant_keys(tenant: str) -> list[str]:
    return [
        tenant_key(tenant, "quota", "open"),
        tenant_key(tenant, "quota", "expiry"),
        records_key(tenant),
    ]


def _ledger_key(tenant: str, caller_id: str) -> str:
    return tenant_key(tenant, "quota", "ledger", check_name("caller id", caller_id))
