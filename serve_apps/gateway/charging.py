"""A call within the quota of whoever asks: reserved before it, settled after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_apps.gateway.admission import Ticket
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.metering import Meter


@asynccontextmanager
async def charged(request: Request, meter: Meter, demand: Demand) -> AsyncIterator[Ticket]:
    """Reserves what a call may come to, and settles at the end of the block what the meter says it owes.

    Raises `RateLimited`, `StoreUnavailable`.
    """
    gateway, exchange, caller = request
    ticket = await gateway.admission.reserve(caller, exchange.id, demand)
    exchange.added_headers += ticket.headers()
    try:
        with ticket.charged(meter):
            yield ticket
    finally:
        exchange.spent = bool(ticket.owed)
