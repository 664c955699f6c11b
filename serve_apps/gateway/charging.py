"""A call within the quota of whoever asks: reserved before it, settled after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_apps.accounting.bills import CallBill, Facts, endpoint_of, merged, tags_of
from serve_apps.gateway.admission import Ticket
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.metering import Meter


@asynccontextmanager
async def charged(request: Request, meter: Meter, demand: Demand) -> AsyncIterator[Ticket]:
    """Reserves what a call may come to, and settles at the end of the block what the meter says it owes.

    Raises `RateLimited`, `BadRequest`, `StoreUnavailable`.
    """
    gateway, exchange, caller = request
    bill = bill_of(request, meter, demand.model)
    ticket = await gateway.admission.reserve(caller, exchange.id, demand, bill)
    exchange.added_headers += exchange.wording.limits(ticket.headers(), gateway.clock())
    try:
        with ticket.charged(meter):
            yield ticket
    finally:
        exchange.spent = bool(ticket.owed)


def bill_of(request: Request, meter: Meter, model: str) -> CallBill:
    """What is told of the call when it ends. Raises `BadRequest`."""
    gateway, exchange, caller = request
    facts = Facts(
        call_id=exchange.id,
        request_id=exchange.shown_id.decode(),
        caller=caller,
        endpoint=endpoint_of(exchange.path),
        model=model,
        began=exchange.deadline - exchange.seconds,
        tags=merged(exchange.marks, merged(tags_of(exchange.headers.get(b"x-tags", b"")), exchange.tags)),
    )
    return CallBill(facts, meter, gateway.clock)
