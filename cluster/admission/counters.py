"""How much each tenant has been served, and who of those that wait has been served least.

The Virtual Token Counter: Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), algorithm 2,
with weights (section 4.3). A tenant's counter grows by what it is served, divided by its weight; the tenant
with the least goes next. One that comes back from idleness is lifted to the least of those that wait, or to
that of the one who left last: being away earns nothing.

    a  waits, counter 900        b comes back with 100: lifted to 900, and the two take turns from here on
    b  idle,  counter 100        (without the lift b would be served alone until it had caught up)

Where the service is w_p for each token of input and w_q >= w_p for each of output, a call has at most L_input
tokens of input and at most M tokens are in the engine at once, then the services of two tenants that always
wait differ by at most 2 max(w_p L_input, w_q M), in whatever span of time (theorem 4.4).
"""

from __future__ import annotations

import heapq
from itertools import count

MAX_IDLE = 10_000
"""Tenants remembered while nothing of theirs waits. One that is forgotten comes back as a new one: what it
had been served beyond its part, which theorem 4.4 bounds, is forgiven."""

STALE = 64
"""Entries that may lie in the heap beside as many as count."""


class _Tenant:
    __slots__ = ("counter", "entry", "name", "waits", "weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.weight = 1.0
        self.counter = 0.0
        self.waits = False
        self.entry = -1
        """Number of its newest entry in the heap: older ones count for nothing."""


class VirtualCounters:
    """Those of one engine. Joining, charging and finding the least cost O(log tenants)."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._idle: dict[str, None] = {}
        """Tenants of whom nothing waits, the one that left last at the end."""
        self._heap: list[tuple[float, int, _Tenant]] = []
        self._entries = count()
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._tenants)

    def join(self, name: str, weight: float) -> None:
        """A call of a tenant begins to wait, of whom none waited. Lifts its counter."""
        least = self.least()
        tenant = self._lifted(name, weight, least if least is not None else next(reversed(self._idle), None))
        tenant.waits = True
        self._waiting += 1
        self._idle.pop(name, None)
        self._push(tenant)

    def visit(self, name: str, weight: float) -> None:
        """A call of a tenant need not wait, as nobody does: as to `join` and to `leave` at once."""
        self._lifted(name, weight, next(reversed(self._idle), None))
        self._idle.pop(name, None)
        self._rest(name)

    def leave(self, name: str) -> None:
        """No call of the tenant waits any more."""
        self._tenants[name].waits = False
        self._waiting -= 1
        self._rest(name)

    def _rest(self, name: str) -> None:
        self._idle[name] = None
        if len(self._idle) > MAX_IDLE:
            forgotten = next(iter(self._idle))
            del self._idle[forgotten], self._tenants[forgotten]

    def charge(self, name: str, service: float) -> None:
        """The tenant was served so much. Negative is what it is given back."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return
        tenant.counter += service / tenant.weight
        if service < 0 and tenant.waits:
            self._push(tenant)

    def least(self) -> str | None:
        """Of the tenants that wait the one with the least counter; of several the one that came first."""
        heap = self._heap
        while heap:
            counter, entry, tenant = heap[0]
            if not tenant.waits or entry != tenant.entry:
                heapq.heappop(heap)
            elif counter < tenant.counter:  # it was served since
                heapq.heapreplace(heap, (tenant.counter, entry, tenant))
            else:
                return tenant.name
        return None

    def of(self, name: str) -> float:
        """What the tenant has been served, or was lifted to, divided by its weight."""
        tenant = self._tenants.get(name)
        return 0.0 if tenant is None else tenant.counter

    def _lifted(self, name: str, weight: float, beside: str | None) -> _Tenant:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(name)
        if beside is not None:
            tenant.counter = max(tenant.counter, self._tenants[beside].counter)
        tenant.weight = weight
        return tenant

    def _push(self, tenant: _Tenant) -> None:
        tenant.entry = next(self._entries)
        heapq.heappush(self._heap, (tenant.counter, tenant.entry, tenant))
        if len(self._heap) > 2 * self._waiting + STALE:
            self._heap = [each for each in self._heap if each[2].waits and each[1] == each[2].entry]
            heapq.heapify(self._heap)
