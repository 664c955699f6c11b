"""How a run of a graph is begun: waited for, streamed, or in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from cluster.errors import ModelUnavailable
from graphs.pipeline import Durability
from graphs.versions import AT
from runtime.durability.journal import Journals
from runtime.events import RunEvent
from runtime.request import RunRequest
from runtime.runner import GraphInfo
from serve_apps.accounting.prices import highest
from serve_apps.api.run_answers import Keeping, tell_accepted, tell_answer, tell_events, tell_numbered
from serve_apps.gateway.background import Begun, begin
from serve_apps.gateway.charging import charged
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Gateway, Request, Runner
from serve_apps.gateway.errors import BadRequest, ClientGone
from serve_apps.gateway.following import cancel, follow, run_events
from serve_apps.gateway.metering import RunMeter
from serve_apps.gateway.quotas import MAX_TOKENS
from serve_apps.gateway.rights import GRAPH_PREFIX


class RunOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a run is begun, and what is kept of it."""

    stream: bool | None = None
    """Events as they happen. So does `Accept: text/event-stream`."""
    background: bool | None = None
    """Answers at once with 202; the run goes on by itself. With `stream`, the events are told as well, and
    the run goes on when their reader leaves."""
    durability: Durability | None = None
    """What is kept so that the run can go on elsewhere, be resumed and forked. Default: as the graph says."""
    token_budget: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    """Tokens, of prompts and outputs together, at which the run is ended; also what is reserved for it."""


async def launch(
    request: Request, run: RunRequest, info: GraphInfo, options: RunOptions, keeping: Keeping | None = None
) -> None:
    """Begins a run and tells what comes of it. Of `run`, what the options say is filled in here.

    Raises `GatewayError`, `ClusterError`, `StoreUnavailable`.
    """
    gateway, exchange, _ = request
    runner = runner_of(gateway)
    streamed = bool(options.stream) or exchange.wants_events
    run = msgspec.structs.replace(
        run,
        stream=streamed,
        durability=options.durability or info.durability,
        background=bool(options.background),
        token_budget=options.token_budget,
    )
    demand = demand_of(gateway, run, info.models, tokens_of(info, options), exchange.seconds)
    exchange.added_headers.append((b"x-run-id", run.run_id.encode()))
    if run.background:
        if keeping is not None:
            raise BadRequest(
                "A background run is no turn of a conversation: leave out 'contextId' or 'background'.",
                param="contextId",
            )
        begun = Begun(run.tenant, run.run_id)
        await begin(request, begun, demand, partial(runner.start, run))
        await tell_begun(request, begun, run.graph, streamed)
    else:
        await _attached(request, run, info, demand, keeping)


async def _attached(
    request: Request, run: RunRequest, info: GraphInfo, demand: Demand, keeping: Keeping | None
) -> None:
    meter = RunMeter(request.gateway.prices)
    async with charged(request, meter, demand):
        events = run_events(request.gateway, run, meter)
        if run.stream:
            await tell_events(request.exchange, run, events, keeping)
        else:
            await tell_answer(request.exchange, run, info.version, events, keeping)


async def tell_begun(request: Request, begun: Begun, graph: str, streamed: bool) -> None:
    """Tells of a run that goes on by itself: where it is, or its events from where it begins."""
    if streamed:
        events = follow(journals_of(request.gateway), begun.tenant, begun.run_id, begun.after)
        await tell_numbered(request.exchange, begun.run_id, events)
    else:
        await tell_accepted(request.exchange, begun.run_id, graph)


async def tell_followed(request: Request, journals: Journals, run: RunRequest, version: str) -> None:
    """Waits for a run that goes on by itself, or tells its events. When the client leaves, or its time is
    over, the run ends."""
    try:
        if run.stream:
            await tell_numbered(request.exchange, run.run_id, follow(journals, run.tenant, run.run_id))
        else:
            await tell_answer(request.exchange, run, version, _events(journals, run))
    except (asyncio.CancelledError, ClientGone):
        await cancel(request.gateway.runs, run.tenant, run.run_id)
        raise


async def _events(journals: Journals, run: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
    async with aclosing(follow(journals, run.tenant, run.run_id)) as batches:
        async for batch in batches:
            yield [each.event for each in batch]


def demand_of(
    gateway: Gateway, run: RunRequest, models: Iterable[str], tokens: int, seconds: float
) -> Demand:
    """What a run that uses so many tokens of these models at most, in so many seconds, may come to."""
    name = GRAPH_PREFIX + run.graph.partition(AT)[0]
    price = highest(gateway.prices, models)
    return Demand(name, input_tokens=0, output_tokens=tokens, price=price, seconds=seconds)


def tokens_of(info: GraphInfo, options: RunOptions) -> int:
    """Most tokens that a run can use."""
    return min(info.token_bound, options.token_budget or info.token_bound)


def runner_of(gateway: Gateway) -> Runner:
    """Raises `ModelUnavailable`."""
    if gateway.runner is None:
        raise ModelUnavailable("no runner is deployed")
    return gateway.runner


def journals_of(gateway: Gateway) -> Journals:
    """Raises `ModelUnavailable`."""
    if gateway.journals is None:
        raise ModelUnavailable("no journals are kept here")
    return gateway.journals
