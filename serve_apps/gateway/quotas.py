"""Quotas: reserved before a call, settled after it, never over any limit.

    reserve ──► call ──► settle (what was used)      or  release (it never reached a model)
       │          └► renew, every few seconds: what it has come to so far
       └── QuotaExceeded                              or  nothing: it expires, charged what was seen of it

Every limit that applies (of key, team and organisation, for everything and for the model) is checked and
charged by one script, for all or nothing, on the store's clock, so any number of gateways may reserve at
once. Minutes slide and are counted in twelfths, rounded up: in no 60 s is more admitted than the limit, and
what was admitted counts for 60 to 65 s. Days and months are those of the calendar, UTC. A limit counts what
is taken from when it is set (`runtime/store/lua/quota.lua`).

What a call did not use goes back at once to the time it was taken from. What it used beyond its reservation
(an engine that ignores `max_tokens`) is charged when it settles, limit or no limit. A reservation lives
`LEASE_S` unless its gateway renews it; gateways look for those of dead ones. What expired is charged what was
seen of it, and its limits hold the rest for ten minutes more: its gateway may live, cut off from the store.
Then it settles after all, and is charged what nobody else can have used meanwhile. The record of a call goes
to its tenant's stream in the very step that closes its reservation.

The clock that counts is the store's. It may step back: time then stands still until it catches up with
itself. A step forward cannot be told from time passing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import is_not
from typing import NamedTuple

import msgspec

from runtime.store.client import Reply, Script, ScriptCall, Store, Word
from runtime.store.errors import CommandFailed, StoreUnavailable
from runtime.store.group_commit import GroupCommit
from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.applied import LETTERS, Applied, applied_limits, every_limit
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.limits import Allowance
from serve_apps.gateway.refusals import LimitState, QuotaExceeded
from serve_apps.gateway.rights import GRAPH_PREFIX

MAX_TOKENS = 10**9
"""Of one call. Numbers in Lua are doubles: the scripts stay far from where these lose integers."""
MAX_NANODOLLARS = 8 * 10**12
"""That one call may cost, input and output each: 8,000 dollars."""
LEASE_S = 15.0
"""How long a reservation lives that nobody renews."""
NOTED_S = 5.0
"""How often a ledger notes that a tenant makes calls."""
MAX_NOTED = 10_000
"""Tenants that a ledger remembers to have noted."""
MAX_KNOWN = 10_000
"""Callers and models that a ledger knows the limits of."""
MAX_LOOKED_AT = 64
"""Tenants, and reservations of each, that one script looks at."""
RENEWED_AT_ONCE = 32
"""Reservations that one script renews."""

DUE_TENANTS = "cgh:quota:due"
SEEN_TENANTS = "cgh:quota:seen"
TENANTS_WITH_RECORDS = "cgh:usage:tenants"
"""Sorted set of the tenants that may have records to fold, by when (Unix ms) they last made a call, noted at
least every `NOTED_S` while they do. Whoever folds removes those that made none for long and whose stream is
empty."""

_SHARED = ("clock", "quota_calendar", "quota")
_NOTE = Script("clock", "quota_note")
_DUE_TENANTS = Script("clock", "leases_due")
_LOOK = Script("clock", "quota_look")
_RESERVE = Script(*_SHARED, "quota_limit", "quota_reserve")
_LEFT = Script(*_SHARED, "quota_limit", "quota_left")
_SETTLE = Script(*_SHARED, "quota_settle")
_CHARGE = Script(*_SHARED, "quota_charge")
_RENEW = Script(*_SHARED, "quota_renew")
_DUE = Script(*_SHARED, "quota_due")
_TOTALS = Script(*_SHARED, "quota_totals")


def records_key(tenant: str) -> str:
    """Of the tenant's stream of records. Each entry has the field `record`, an encoded `CallRecord`.

    An entry with a field `before` takes the place of that earlier record: of a call that expired and was
    settled after all. What is not read in time makes room: the newest 250,000 are kept.
    """
    return tenant_key(tenant, "usage", "records")


class Reservation(msgspec.Struct, frozen=True):
    """What was taken for one call, until it settles or expires."""

    reservation_id: str
    tenant: str
    caller_id: str
    granted: Demand
    """What was reserved: the demand, its output cut to what was left where it may be."""
    limits: tuple[LimitState, ...]


class Observed(NamedTuple):
    """What an open reservation has come to so far."""

    reservation_id: str
    spent: Spent
    record: bytes = b""
    """Of the call, should it expire now."""


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
    nanodollars: int = 0
    """Spent, as settled."""


class _HeldTo(NamedTuple):
    """What a caller's calls of a model are held to, as the scripts are told."""

    allowances: tuple[Allowance, ...]
    """That it was worked out from."""
    limits: list[Applied]
    keys: list[str]
    args: list[Word]
    """For each limit its kind and the most it admits."""

    @classmethod
    def of(cls, caller: Caller, model: str, allowances: tuple[Allowance, ...]) -> _HeldTo:
        limits = applied_limits(caller, model)
        keys = [
            *_tenant_keys(caller.tenant),
            _ledger_key(caller.tenant, caller.id),
            *(limit.key for limit in limits),
        ]
        args: list[Word] = [word for limit in limits for word in (LETTERS[limit.kind], limit.most)]
        return cls(allowances, limits, keys, args)


class QuotaLedger:
    """Reserves and settles, in group commit: calls of one turn of the event loop share a round trip, and a
    settlement, which no client waits for, goes along with the next reservation if one comes soon.

    `clock` gives Unix seconds in place of the store's clock, for tests: several gateways agree on none.
    `monotonic` ages what the ledger remembers to have noted.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store = store
        self._commit = GroupCommit(store)
        self._clock = clock
        self._monotonic = monotonic
        self._lease_ms = int(lease_s * 1000)
        self._noted: dict[str, float] = {}
        self._known: dict[tuple[str, str, str, str], _HeldTo] = {}
        """By organisation, team, caller and model."""

    async def reserve(
        self, caller: Caller, demand: Demand, *, reservation_id: str, record: bytes = b""
    ) -> Reservation:
        """Takes one request and what it may come to from all limits of `caller`, or from none. Where the
        output may be cut, as much of it as is left.

        It expires after the lease unless it is renewed, and `record`, where it is not empty, is then what the
        tenant's stream of records is told of the call. A `reservation_id` that is open already is not taken
        twice. A caller cancelled here leaves nothing taken. Raises `QuotaExceeded`, and `StoreUnavailable`,
        after which it may be taken, and then expires.
        """
        _check(Spent(demand.tokens, max(demand.fixed_nanodollars, demand.output_nanodollars)))
        held_to = self._held_to(caller, demand.model)
        least = demand.output_tokens if demand.least_output_tokens is None else demand.least_output_tokens
        args: list[Word] = [
            *(self._now(), reservation_id, self._lease_ms, record),
            *(demand.input_tokens, demand.output_tokens, min(least, demand.output_tokens)),
            *(demand.fixed_nanodollars, demand.price.output),
            *held_to.args,
        ]
        self._note(caller.tenant)
        reply = await self._commit.run(
            ScriptCall(_RESERVE, held_to.keys, args),
            abandoned=lambda reply: self._give_back_unasked(caller.tenant, reservation_id, reply),
        )
        admitted, output, *replies = reply
        states = tuple(
            limit_state(limit, remaining, full_ms)
            for limit, (remaining, _, full_ms) in zip(held_to.limits, replies, strict=True)
        )
        if not admitted:
            raise refusal_of(demand, states, [wait_ms for _, wait_ms, _ in replies], output)
        granted = demand
        if output != demand.output_tokens:
            granted = msgspec.structs.replace(demand, output_tokens=output)
        return Reservation(reservation_id, caller.tenant, caller.id, granted, states)

    async def settle(self, reservation: Reservation, spent: Spent, record: bytes = b"") -> bool:
        """Charges what was spent, frees the rest, and adds `record`, an encoded `CallRecord`, to the tenant's
        stream of records, all in one step. Goes through even if the caller is cancelled here.

        False, and nothing changes, if the reservation is settled already; so it may be repeated after
        `StoreUnavailable`, which it raises. One that has expired is charged what was not seen of it.
        """
        return bool(await asyncio.shield(self.settling(reservation, spent, record)))

    async def release(self, reservation: Reservation, record: bytes = b"") -> bool:
        """Gives everything and the request back: for a call that, through no doing of the caller, reached no
        model. One that has expired keeps its request.

        As `settle` otherwise.
        """
        return bool(await asyncio.shield(self.releasing(reservation, record)))

    def settling(self, reservation: Reservation, spent: Spent, record: bytes = b"") -> asyncio.Future[Reply]:
        """As `settle`, on its way whether or not anybody waits for it. Raises `StoreUnavailable` where too
        much is on its way already."""
        _check(spent)
        return self._submit_close(reservation.tenant, reservation.reservation_id, spent, 1, record)

    def releasing(self, reservation: Reservation, record: bytes = b"") -> asyncio.Future[Reply]:
        """As `release`, on its way as `settling` is."""
        return self._submit_close(reservation.tenant, reservation.reservation_id, Spent(0), 0, record)

    async def charge(
        self, caller: Caller, model: str, reservation_id: str, spent: Spent, record: bytes = b""
    ) -> bool:
        """Charges a call of `model` that was admitted without the ledger, while the store was out, whatever
        is left of its limits. As `settle` otherwise.
        """
        _check(spent)
        held_to = self._held_to(caller, model)
        args: list[Word] = [self._now(), reservation_id, spent.tokens, spent.nanodollars, record]
        args += held_to.args[::2]
        self._note(caller.tenant)
        return bool(await self._commit.run(ScriptCall(_CHARGE, held_to.keys, args)))

    async def renew(self, tenant: str, observed: Sequence[Observed]) -> list[str]:
        """Holds on to open reservations of a tenant for another lease, and notes what each has come to: that
        is what it is charged should it expire. The ids that are not open any more. Raises `StoreUnavailable`.
        """
        calls = []
        for start in range(0, len(observed), RENEWED_AT_ONCE):
            args: list[Word] = [self._now(), self._lease_ms]
            for each in observed[start : start + RENEWED_AT_ONCE]:
                _check(each.spent)
                args += (each.reservation_id, each.spent.tokens, each.spent.nanodollars, each.record)
            call = ScriptCall(_RENEW, _tenant_keys(tenant), args)
            calls.append(self._commit.submit(call, linger=True))
        held = [one for reply in await asyncio.gather(*calls) for one in reply]
        return [each.reservation_id for each, still in zip(observed, held, strict=True) if not still]

    async def settle_due(self) -> int:
        """Ends what has expired, of any tenant, and says how much that was. Any gateway may do so at any
        time. Raises `StoreUnavailable`.
        """
        _, found = await self._store.run(_DUE_TENANTS, [DUE_TENANTS], [self._now(), MAX_LOOKED_AT])
        if not found:
            return 0
        tenants: list[bytes] = found[::2]
        settled, again = 0, dict.fromkeys(tenants, 0)
        more = tenants
        while more:
            replies = await self._store.run_many([self._due(tenant.decode()) for tenant in more])
            ended = dict(zip(more, replies, strict=True))
            more = []
            for tenant, reply in ended.items():
                if isinstance(reply, CommandFailed):
                    raise reply
                settled += reply[0]
                again[tenant] = reply[1]
                if reply[0] == MAX_LOOKED_AT:
                    more.append(tenant)
        looked = [
            word
            for tenant, due in zip(tenants, found[1::2], strict=True)
            for word in (tenant, due, again[tenant])
        ]
        args: list[Word] = [self._now(), int(2 * NOTED_S * 1000), self._lease_ms, *looked]
        await self._store.run(_LOOK, [DUE_TENANTS, SEEN_TENANTS], args)
        return settled

    def _due(self, tenant: str) -> ScriptCall:
        return ScriptCall(_DUE, _tenant_keys(tenant), [self._now(), MAX_LOOKED_AT])

    async def answering(self) -> None:
        """Returns once the store is not known to be out."""
        await self._store.answering()

    async def totals(self, tenant: str, caller_id: str) -> Totals:
        """A caller's ledger, for looking at: all that its tenant has open is gone through. Raises
        `StoreUnavailable`."""
        keys = [*_tenant_keys(tenant), _ledger_key(tenant, caller_id)]
        return Totals(*map(int, await self._store.run(_TOTALS, keys, [self._now()])))

    async def left(self, caller: Caller) -> tuple[LimitState, ...]:
        """All limits of a caller, those of single models among them, and what is left of each now.

        Raises `StoreUnavailable`.
        """
        limits = every_limit(caller)
        states: list[LimitState] = []
        for start in range(0, len(limits), MAX_LOOKED_AT):
            some = limits[start : start + MAX_LOOKED_AT]
            args: list[Word] = [self._now()]
            for limit in some:
                args += (LETTERS[limit.kind], limit.most)
            keys = [*_tenant_keys(caller.tenant), *(limit.key for limit in some)]
            reply = await self._store.run(_LEFT, keys, args)
            states += (limit_state(limit, *pair) for limit, pair in zip(some, reply, strict=True))
        return tuple(states)

    def _held_to(self, caller: Caller, model: str) -> _HeldTo:
        """Worked out anew when an allowance is another one. Raises `InvalidName`."""
        allowances = (caller.organisation_allowance, caller.team_allowance, caller.allowance)
        place = (caller.tenant, caller.team, caller.id, model)
        known = self._known.get(place)
        if known is None or any(map(is_not, known.allowances, allowances)):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[place] = _HeldTo.of(caller, model, allowances)
        return known

    def _submit_close(
        self, tenant: str, reservation_id: str, spent: Spent, requests: int, record: bytes
    ) -> asyncio.Future[Reply]:
        args: list[Word] = [
            *(self._now(), reservation_id),
            *(spent.tokens, spent.nanodollars, requests, record),
        ]
        reply = self._commit.submit(ScriptCall(_SETTLE, _tenant_keys(tenant), args), linger=True)
        reply.add_done_callback(_heard)
        return reply

    def _note(self, tenant: str) -> None:
        """Notes that the tenant makes calls, unless it was done just now; it goes along with the next call.

        The sets span all tenants, so they are no keys of the scripts that touch a tenant's own.
        """
        now = self._monotonic()
        if now < self._noted.get(tenant, 0.0):
            return
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted[tenant] = now + NOTED_S
        args: list[Word] = [self._now(), tenant, self._lease_ms]
        keys = [DUE_TENANTS, SEEN_TENANTS, TENANTS_WITH_RECORDS]
        noted = self._commit.submit(ScriptCall(_NOTE, keys, args))
        noted.add_done_callback(lambda done: self._noted_or_not(tenant, done))

    def _noted_or_not(self, tenant: str, reply: asyncio.Future[Reply]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self._noted.pop(tenant, None)

    def _give_back_unasked(self, tenant: str, reservation_id: str, reply: Reply) -> None:
        """The caller left between asking and hearing: if it was admitted, undo that."""
        if reply[0]:
            with suppress(StoreUnavailable):  # it expires
                self._submit_close(tenant, reservation_id, Spent(0), 0, b"")

    def _now(self) -> Word:
        return "" if self._clock is None else int(self._clock() * 1000)


def _heard(reply: asyncio.Future[Reply]) -> None:
    """Of a settlement that nobody waits for (any more): whether the store is out is told elsewhere."""
    if not reply.cancelled():
        reply.exception()


def _check(spent: Spent) -> None:
    if not 0 <= spent.tokens <= MAX_TOKENS:
        raise ValueError(f"tokens must be between 0 and {MAX_TOKENS}, not {spent.tokens}")
    if not 0 <= spent.nanodollars <= MAX_NANODOLLARS:
        raise ValueError(f"nanodollars must be between 0 and {MAX_NANODOLLARS}, not {spent.nanodollars}")


def limit_state(limit: Applied, remaining: int, full_ms: int) -> LimitState:
    """`full_ms`: until all of it is free again, -1 where nobody knows."""
    reset_s = None if full_ms < 0 else full_ms / 1000
    return LimitState(limit.level, limit.level_id, limit.model, limit.kind, limit.most, remaining, reset_s)


def refusal_of(
    demand: Demand, states: tuple[LimitState, ...], waits_ms: Sequence[int], fits: int
) -> QuotaExceeded:
    """The limit that refuses for longest speaks for all. `waits_ms` is of each limit, 0 where it would have
    admitted the call, -1 where it never will; `fits` is what output would be admitted now, -1 for none."""
    worst = max(range(len(states)), key=lambda i: float("inf") if waits_ms[i] < 0 else waits_ms[i])
    wait_ms = waits_ms[worst]
    return QuotaExceeded(
        states[worst],
        _requested(demand, states[worst]),
        None if wait_ms < 0 else wait_ms / 1000,
        _hint(demand, fits),
        states,
    )


def _requested(demand: Demand, state: LimitState) -> int:
    """What the call asks for, in the unit of a limit: the least it asks for, where it may be cut."""
    least = demand
    if demand.least_output_tokens is not None:
        output = min(demand.least_output_tokens, demand.output_tokens)
        least = msgspec.structs.replace(demand, output_tokens=output)
    match state.kind:
        case "money_per_month":
            return least.fixed_nanodollars + least.output_nanodollars
        case "tokens_per_minute" | "tokens_per_day":
            return least.tokens
        case _:
            return 1


def _hint(demand: Demand, fits: int) -> str | None:
    """What the client may bound its output by, to be admitted now."""
    each = fits // demand.choices
    if demand.least_output_tokens is not None or not 0 < each < demand.output_tokens // demand.choices:
        return None
    name = "token_budget" if demand.model.startswith(GRAPH_PREFIX) else "max_tokens"
    return f"{name} up to {each}"


@lru_cache(maxsize=MAX_KNOWN)
def _tenant_keys(tenant: str) -> tuple[str, ...]:
    return (
        tenant_key(tenant, "quota", "open"),
        tenant_key(tenant, "quota", "expiry"),
        records_key(tenant),
    )


def _ledger_key(tenant: str, caller_id: str) -> str:
    return tenant_key(tenant, "quota", "ledger", check_name("caller id", caller_id))
