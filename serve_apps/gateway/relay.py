"""From a pool's batches to the client: all at once, or as they come.

A reply is complete when its `Usage` has arrived. One that ends before that is broken, and is never passed
off as whole: the client gets an error status, or, if something was sent already, an error event and no
`[DONE]`. Whatever the end, the batches are closed, which aborts the call in the engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from cluster.errors import EngineFailed
from cluster.interface import Batch
from cluster.messages import Usage
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.metering import Meter
from serve_apps.translators.openai_replies import ContextVersion

Remember = Callable[[Batch], Awaitable[ContextVersion | None]]
"""Keeps the whole reply, before the client hears that it is whole."""


class Writer(Protocol):
    """Turns batches into the events of one stream, in some dialect."""

    def feed(self, batch: Batch) -> bytes: ...

    def end(self, usage: Usage, context: ContextVersion | None) -> bytes: ...


async def collect(batches: AsyncGenerator[Batch, None], meter: Meter) -> Batch:
    """All events of a reply. Raises `EngineFailed` when it ends too early."""
    events: Batch = []
    async with aclosing(batches):
        async for batch in batches:
            meter.observe(batch)
            events += batch
    _whole(meter)
    return events


async def stream(
    exchange: Exchange,
    batches: AsyncGenerator[Batch, None],
    meter: Meter,
    writer: Writer,
    remember: Remember | None,
) -> None:
    """Sends every batch as it comes. The response starts with the first: until then it can still fail with
    a status of its own. Raises `EngineFailed` when the reply ends too early."""
    kept: Batch = []
    async with aclosing(batches):
        async for batch in batches:
            meter.observe(batch)
            if remember is not None:
                kept += batch
            if not exchange.started:
                await exchange.start_stream()
            if events := writer.feed(batch):
                await exchange.write(events)
    usage = _whole(meter)
    context = await remember(kept) if remember is not None else None
    await exchange.end(writer.end(usage, context))


def _whole(meter: Meter) -> Usage:
    if meter.usage is None:
        raise EngineFailed("the reply ended before it was complete")
    return meter.usage
