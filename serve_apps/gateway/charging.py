"""A call within the quota of whoever asks: reserved before it, settled after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_apps.gateway.deps import Request
from serve_apps.gateway.metering import Meter


@asynccontextmanager
async def charged(request: Request, meter: Meter, tokens: int) -> AsyncIterator[None]:
    """Reserves `tokens` for a call, and settles at the end of the block what the meter says it owes.

    Raises `RateLimited`, `StoreUnavailable`.
    """
    gateway, exchange, key = request
    ticket = await gateway.admission.reserve(key, exchange.id, tokens, exchange.seconds)
    exchange.added_headers += ticket.headers()
    try:
        with ticket.charged(meter):
            yield
    finally:
        exchange.spent = bool(ticket.owed)
