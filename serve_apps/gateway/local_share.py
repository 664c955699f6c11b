"""Rates while the store is out: each gateway by itself, with its part of every limit.

    limit 600 a minute, 4 gateways ─► 150 here, counted as the store does: in twelfths of a minute

So all gateways together admit no more than the limit in any minute of the outage. What was admitted just
before it is not known here: around its beginning twice the limit may be. Budgets (tokens of a day, money of a
month) are known to the store alone: who has one is not admitted.

Pure: the time is passed in, in seconds of any clock that does not step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from runtime.store.errors import StoreUnavailable
from serve_apps.gateway.applied import Applied, LimitKind, applied_limits
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.quotas import Reservation, limit_state, refusal_of

BUCKETS: Final = 12
WIDTH_S: Final = 60 / BUCKETS
MAX_WINDOWS: Final = 50_000
GAUGE_WAIT_S: Final = 1.0
"""Told when as many calls run as may: nobody knows when one ends."""

_BUDGETS: frozenset[LimitKind] = frozenset(("tokens_per_day", "money_per_month"))


class _Taken(msgspec.Struct):
    """Of one limit, by one call."""

    limit: Applied
    amount: int
    bucket: int


class LocalShare:
    """One gateway's part of the limits."""

    def __init__(self, gateways: int) -> None:
        self._gateways = gateways
        self._windows: dict[str, dict[int, int]] = {}
        self._running: dict[str, int] = {}
        self._open: dict[str, list[_Taken]] = {}

    def reserve(self, caller: Caller, demand: Demand, reservation_id: str, now: float) -> Reservation:
        """As the ledger does. Raises `QuotaExceeded`, and `StoreUnavailable` for who has a budget."""
        limits = applied_limits(caller, demand.model)
        if any(limit.kind in _BUDGETS for limit in limits):
            raise StoreUnavailable("the store is out, and a budget is known to it alone")
        self._forget(now)
        if len(self._windows) + len(limits) > MAX_WINDOWS:
            raise StoreUnavailable("the store is out, and too many limits are counted here already")
        bucket = math.floor(now / WIDTH_S)
        shares = [limit._replace(most=limit.most // self._gateways) for limit in limits]
        left = [share.most - self._taken(share, bucket) for share in shares]
        output, waits = self._output(demand, shares, left, now)
        states = tuple(
            limit_state(share, max(0, remaining), self._full_ms(share, now))
            for share, remaining in zip(shares, left, strict=True)
        )
        if any(wait != 0 for wait in waits):
            raise refusal_of(demand, states, [_in_ms(wait) for wait in waits], output)
        granted = msgspec.structs.replace(demand, output_tokens=output)
        taken = [_Taken(share, _needed(share.kind, granted), bucket) for share in shares]
        for each in taken:
            self._add(each, each.amount)
        self._open[reservation_id] = taken
        return Reservation(reservation_id, caller.tenant, caller.id, granted, states)

    def close(self, reservation_id: str, spent: Spent, requests: int) -> bool:
        """Whether it was open here. What was not used can be taken again."""
        taken = self._open.pop(reservation_id, None)
        for each in taken or ():
            used = {"requests_per_minute": requests, "concurrent_requests": 0}.get(
                each.limit.kind, spent.tokens
            )
            self._add(each, used - each.amount)
        return taken is not None

    def _output(
        self, demand: Demand, shares: list[Applied], left: list[int], now: float
    ) -> tuple[int, list[float | None]]:
        """Tokens of the output, and how long each limit makes the call wait: not at all 0, for ever None."""
        least = demand.output_tokens if demand.least_output_tokens is None else demand.least_output_tokens
        smallest = msgspec.structs.replace(demand, output_tokens=min(least, demand.output_tokens))
        output = demand.output_tokens
        waits: list[float | None] = []
        for share, remaining in zip(shares, left, strict=True):
            needed = _needed(share.kind, smallest)
            waits.append(self._wait(share, needed, remaining, now))
            if share.kind == "tokens_per_minute":
                output = min(output, remaining - demand.input_tokens)
            elif remaining < 1:
                output = -1
        return max(-1, output), waits

    def _wait(self, share: Applied, needed: int, remaining: int, now: float) -> float | None:
        if needed > share.most:
            return None
        if needed <= remaining:
            return 0.0
        if share.kind == "concurrent_requests":
            return GAUGE_WAIT_S
        excess = needed - remaining
        for bucket, amount in sorted(self._windows[share.key].items()):
            excess -= amount
            if excess <= 0:
                return (bucket + BUCKETS + 1) * WIDTH_S - now
        return 0.0

    def _taken(self, share: Applied, bucket: int) -> int:
        if share.kind == "concurrent_requests":
            return self._running.get(share.key, 0)
        window: Mapping[int, int] = self._windows.get(share.key, {})
        return sum(amount for at, amount in window.items() if at >= bucket - BUCKETS)

    def _full_ms(self, share: Applied, now: float) -> int:
        if share.kind == "concurrent_requests":
            return -1
        newest = max((at for at, amount in self._windows.get(share.key, {}).items() if amount), default=None)
        return 0 if newest is None else int(((newest + BUCKETS + 1) * WIDTH_S - now) * 1000)

    def _add(self, taken: _Taken, amount: int) -> None:
        key = taken.limit.key
        if taken.limit.kind == "concurrent_requests":
            running = self._running.get(key, 0) + amount
            self._running[key] = running
            if running <= 0:
                del self._running[key]
            return
        window = self._windows.setdefault(key, {})
        window[taken.bucket] = window.get(taken.bucket, 0) + amount

    def _forget(self, now: float) -> None:
        """Drops what is over, once in a while."""
        if len(self._windows) < MAX_WINDOWS // 2:
            return
        oldest = math.floor(now / WIDTH_S) - BUCKETS
        self._windows = {key: window for key, window in self._windows.items() if max(window) >= oldest}


def _needed(kind: LimitKind, demand: Demand) -> int:
    return demand.tokens if kind == "tokens_per_minute" else 1


def _in_ms(wait_s: float | None) -> int:
    return -1 if wait_s is None else math.ceil(wait_s * 1000)
