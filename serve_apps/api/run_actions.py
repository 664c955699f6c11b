"""`/v1/runs/{run_id}/events`, `/resume` and `/fork`, as raw ASGI endpoints: what is done with a run later."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from runtime.durability.forking import fork
from runtime.durability.journal import Kept
from runtime.errors import InvalidInputs, UnknownRun
from runtime.plan import encode_plan
from runtime.request import RunRequest
from runtime.runner import info_of, validate_inputs
from serve_apps.api.launch import RunOptions, demand_of, journals_of, runner_of, tell_begun, tell_followed
from serve_apps.api.parameters import unknown_parameter
from serve_apps.api.run_answers import tell_numbered
from serve_apps.api.runs import find_run, nothing_kept
from serve_apps.gateway.background import Begun, begin, so_far
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest, Conflict, Forbidden, Unprocessable
from serve_apps.gateway.following import follow
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.inline import reaches_out
from serve_apps.gateway.rights import GRAPH_PREFIX, INLINE_PREFIX, may_use
from serve_apps.gateway.routing import wait_for_models
from serve_apps.translators.decoding import BodyDecoder, check_free_form

EVENTS_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "after": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Only events behind this number. `Last-Event-ID` goes before it.",
    },
}


class ResumeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{run_id}/resume`."""

    stream: bool | None = None
    """The events from here on. So does `Accept: text/event-stream`. The run goes on without their reader."""


class ForkBody(RunOptions, frozen=True, kw_only=True):
    """`POST /v1/runs/{run_id}/fork`."""

    node: str | None = msgspec.field(default=None, name="from")
    """Path of the node that is run again, with all that follows from it; `search[3].each` for one inside
    another. Absent: all is run again, or all that follows from other `inputs`."""
    outputs: dict[str, Any] | None = None
    """By port, what that node gives instead of being run. A port that is left out keeps what it gave."""
    inputs: dict[str, Any] | None = None
    """By name, in place of those of the run."""


_decode_resume = BodyDecoder(ResumeBody).decode
_decode_fork = BodyDecoder(ForkBody).decode


async def run_events(request: Request) -> None:
    gateway, exchange, caller = request
    run_id, after = _run_id(exchange), _after(exchange)
    exchange.watch()
    await _check_kept(gateway, caller, run_id, "events")
    exchange.added_headers.append((b"x-run-id", run_id.encode()))
    await tell_numbered(exchange, run_id, follow(journals_of(gateway), caller.tenant, run_id, after))


async def resume_run(request: Request) -> None:
    gateway, exchange, caller = request
    body = _decode_resume(await exchange.body(gateway.settings.max_body_bytes))
    kept = await _kept_run(gateway, caller, _run_id(exchange))
    run = kept.request
    if kept.state == "running":
        raise Conflict(f"The run {run.run_id} goes on.", code="run_running")
    if kept.state == "succeeded":
        raise Conflict(f"The run {run.run_id} has succeeded: fork it instead.", code="run_succeeded")
    begun = await go_on(request, kept, exchange.deadline, exchange.seconds)
    exchange.added_headers.append((b"x-run-id", begun.run_id.encode()))
    await tell_begun(request, begun, run.graph, bool(body.stream) or exchange.wants_events)


async def go_on(request: Request, kept: Kept, deadline: float | None, seconds: float) -> Begun:
    """Has a run go on that is suspended or has failed. Raises as `begin`, `Unavailable`."""
    gateway, run = request.gateway, kept.request
    runner = runner_of(gateway)
    wait_for_models(gateway, kept.plan.models)
    begun = await so_far(journals_of(gateway), run.tenant, run.run_id)
    await gateway.runs.cancel_no_more(run.tenant, run.run_id)
    start = partial(runner.resume, run.tenant, run.run_id, deadline)
    demand = demand_of(gateway, run, kept.plan.models, tokens_of(kept, run.token_budget), seconds)
    await begin(request, begun, demand, start)
    return begun


async def fork_run(request: Request) -> None:
    gateway, exchange, caller = request
    body = _decode_fork(await exchange.body(gateway.settings.max_body_bytes))
    check_free_form(body.inputs or {}, "inputs")
    check_free_form(body.outputs or {}, "outputs")
    kept = await _kept_run(gateway, caller, _run_id(exchange))
    runner, journals = runner_of(gateway), journals_of(gateway)
    old = kept.request
    _check_rights(caller, kept)
    inputs = validate_inputs(info_of(kept.plan).inputs, {**old.inputs, **(body.inputs or {})})
    changed = [name for name, value in inputs.items() if name not in old.inputs or old.inputs[name] != value]
    try:
        done = fork(kept.plan, kept.done, body.node, body.outputs, changed)
    except InvalidInputs as error:
        raise Unprocessable(f"The run cannot be forked so. {error.message}", param=error.param) from None
    wait_for_models(gateway, kept.plan.models)
    run = RunRequest(
        run_id=exchange.id,
        graph=old.graph,
        inputs=inputs,
        deadline=exchange.deadline,
        tenant=caller.tenant,
        history=old.history,
        stream=bool(body.stream) or exchange.wants_events,
        durability=body.durability or old.durability,
        background=True,
        token_budget=body.token_budget,
        plan=encode_plan(kept.plan),
    )
    exchange.added_headers.append((b"x-run-id", run.run_id.encode()))
    begun = Begun(run.tenant, run.run_id)
    start = partial(runner.start, run, list(done.values()))
    tokens = tokens_of(kept, body.token_budget)
    demand = demand_of(gateway, run, kept.plan.models, tokens, exchange.seconds)
    await begin(request, begun, demand, start)
    if body.background:
        await tell_begun(request, begun, run.graph, run.stream)
    else:
        await tell_followed(request, journals, run, kept.plan.version)


def _check_rights(caller: Caller, kept: Kept) -> None:
    """A fork has inputs of its own: what a colleague's pipeline may do, its key must be allowed to do.

    Raises `Forbidden`.
    """
    inline = kept.request.graph.startswith(INLINE_PREFIX)
    if inline and not caller.functions and reaches_out(kept.plan.steps):
        raise Forbidden(
            "The pipeline of this run uses functions or servers, which this API key's own pipelines may not: "
            "a key made with --functions may fork it."
        )


def tokens_of(kept: Kept, budget: int | None) -> int:
    """Most tokens that a run of the same plan can use."""
    bound = kept.plan.token_bound
    return bound if budget is None else min(bound, budget)


async def _kept_run(gateway: Gateway, caller: Caller, run_id: str) -> Kept:
    """All that is kept of a run of which checkpoints are. Raises as `_check_kept`."""
    await _check_kept(gateway, caller, run_id, "checkpoints")
    return await journals_of(gateway).read(caller.tenant, run_id)


async def _check_kept(
    gateway: Gateway, caller: Caller, run_id: str, what: Literal["events", "checkpoints"]
) -> None:
    """That the journal has a run of the key's tenant, of a graph that the key may use, and what is needed of
    it, without reading that.

    Raises `NotFound`, `Conflict` where the run keeps none, `StoreUnavailable`.
    """
    try:
        run, _, _ = await journals_of(gateway).head(caller.tenant, run_id)
    except UnknownRun:
        await find_run(gateway, caller, run_id)
    else:
        if not may_use(caller, GRAPH_PREFIX + run.graph):
            await find_run(gateway, caller, run_id)
        if what == "events" or run.durability != "none":
            return
    raise nothing_kept(run_id, what)


def _run_id(exchange: Exchange) -> str:
    return exchange.path.split("/")[3]


def _after(exchange: Exchange) -> int:
    """The number behind which events are asked for. Raises `BadRequest`."""
    asked = dict(parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True))
    for name in asked:
        if name not in EVENTS_PARAMETERS:
            raise unknown_parameter(name, EVENTS_PARAMETERS)
    header = exchange.headers.get(b"last-event-id")
    name, given = ("after", asked.get("after", "0")) if header is None else ("last-event-id", _text(header))
    if not (given.isascii() and given.isdigit() and len(given) <= 15):
        raise BadRequest(f"{name!r} must be the number of an event.", param=name, code="invalid_value")
    return int(given)


def _text(header: bytes) -> str:
    return header.decode("latin-1")
