"""`/v1/runs`: what became of the runs of the key's own tenant, and a way to end one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, Final, Literal, TypeVar, get_args

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Struct, UnsetType, structs

from cluster.messages import Failure
from runtime.drive import past_of
from runtime.durability import journal
from runtime.errors import LeaseLost, RunCancelled, RunEnded, RunHeld, UnknownRun
from runtime.events import RunFailed
from runtime.records.model import Kept, RunFault, RunRecord, RunStatus, RunSummary, keep
from runtime.records.trace import Trace
from serve_apps.api.auditing import deed_of
from serve_apps.api.common import caller_of, exchange_of, json_response
from serve_apps.api.parameters import asked_of, limit_of, one_of
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import Conflict, NotFound
from serve_apps.gateway.failures import told
from serve_apps.gateway.following import follow
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.rights import GRAPH_PREFIX, may_use

MAX_LISTED = 100
DEFAULT_LISTED = 20

LIST_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LISTED},
    "graph": {"type": "string", "description": "Only runs of this graph."},
    "status": {"type": "string", "enum": list(get_args(RunStatus)), "description": "Only runs that are so."},
    "after": {"type": "string", "description": "The `last_id` of the page before."},
}

RUN_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "outputs": {
        "type": "boolean",
        "default": False,
        "description": "With what each node gave, as far as it is small; of a run with a durability.",
    },
}

R = TypeVar("R", bound=RunSummary)


class RunList(Struct, frozen=True):
    """Some runs, the newest first."""

    data: list[RunSummary]
    has_more: bool
    last_id: str | None
    """What to give as `after` to see older ones."""
    object: Literal["list"] = "list"


class RunWithOutputs(RunRecord, frozen=True):
    """A run, and on request what its nodes gave."""

    node_outputs: Kept | UnsetType = UNSET
    """By path of the node. Bytes of what is too large to show."""


class CancelAnswer(Struct, frozen=True):
    """What comes of a call to cancel."""

    run_id: str
    status: Literal["cancelling", "succeeded", "failed", "cancelled"]
    """`cancelling`: it ends within a second. `cancelled`: it has ended; so has any other."""


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["runs"])

    @routes.get("/v1/runs")
    async def list_runs(request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        asked = asked_of(request, LIST_PARAMETERS)
        graph = asked.get("graph")
        page = await gateway.runs.newest(
            caller.tenant,
            limit_of(asked.get("limit"), DEFAULT_LISTED, MAX_LISTED),
            gateway.clock(),
            wanted=lambda name: graph in (None, name) and may_use(caller, GRAPH_PREFIX + name),
            status=one_of("status", asked.get("status"), get_args(RunStatus)),
            after=asked.get("after"),
        )
        last = page.runs[-1].run_id if page.runs else None
        return json_response(RunList([_public(run) for run in page.runs], page.more, last))

    @routes.get("/v1/runs/{run_id}")
    async def get_run(run_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        asked = asked_of(request, RUN_PARAMETERS)
        run = _public(await find_run(gateway, caller, run_id))
        if one_of("outputs", asked.get("outputs"), ("true", "false")) != "true":
            return json_response(run)
        shown = {name: getattr(run, name) for name in run.__struct_fields__}
        return json_response(
            RunWithOutputs(**shown, node_outputs=await _node_outputs(gateway, caller, run_id))
        )

    @routes.post("/v1/runs/{run_id}/cancel")
    async def cancel_run(run_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        run = await find_run(gateway, caller, run_id)
        if run.status != "running" and run.status != "suspended":
            return json_response(CancelAnswer(run_id, run.status))
        async with _audited(gateway, exchange_of(request), caller, run):
            if run.status == "running":
                await gateway.runs.ask_to_cancel(caller.tenant, run_id)
            ended = await _end_unattended(gateway, run)
        return json_response(CancelAnswer(run_id, "cancelled" if ended else "cancelling"))

    return routes


def _audited(
    gateway: Gateway, exchange: Exchange, caller: Caller, run: RunRecord
) -> AbstractAsyncContextManager[object]:
    """Around the end of a run: what those do who may end the runs of others is written down."""
    if caller.role not in ("admin", "owner"):
        return nullcontext()
    return gateway.audit.changing(deed_of(gateway, exchange, caller, "run.cancel", f"run/{run.run_id}"))


async def find_run(gateway: Gateway, caller: Caller, run_id: str) -> RunRecord:
    """A run of the key's tenant, of a graph that the key may use. Raises `NotFound`, `StoreUnavailable`."""
    run = await gateway.runs.load(caller.tenant, run_id, gateway.clock())
    if run is None:
        run = await _unrecorded(gateway, caller, run_id)
    if run is None or not may_use(caller, GRAPH_PREFIX + run.graph):
        raise NotFound(f"There is no run {run_id[:100]!r}.", code="run_not_found")
    return run


async def _unrecorded(gateway: Gateway, caller: Caller, run_id: str) -> RunRecord | None:
    """A run whose record is not written yet: it is written beside the run, and the journal before."""
    try:
        kept = await _journal_of(gateway, caller.tenant, run_id)
    except UnknownRun:
        return None
    request, plan, started = kept.request, kept.plan, past_of(kept.done).started
    if kept.state != "running" and gateway.journals is not None:
        trace = Trace(request, started, kept.attempt)
        async with aclosing(follow(gateway.journals, caller.tenant, run_id)) as batches:
            async for batch in batches:
                trace.replay(each.event for each in batch)
        if trace.accepted:
            return trace.record()
    return RunRecord(
        run_id=run_id,
        tenant=request.tenant,
        graph=request.graph,
        version=plan.version,
        plan_hash=plan.hash,
        status=kept.state,
        started=started,
        deadline=request.deadline,
        inputs=keep(request.inputs),
    )


async def _journal_of(gateway: Gateway, tenant: str, run_id: str) -> journal.Kept:
    """Raises `UnknownRun`, `StoreUnavailable`."""
    if gateway.journals is None:
        raise UnknownRun(f"nothing is kept of a run {run_id}")
    return await gateway.journals.read(tenant, run_id)


async def _node_outputs(gateway: Gateway, caller: Caller, run_id: str) -> Kept:
    """What the nodes of a run gave, as far as it is small. Raises `Conflict` where nothing is kept of it."""
    try:
        kept = await _journal_of(gateway, caller.tenant, run_id)
    except UnknownRun:
        raise nothing_kept(run_id, "outputs") from None
    if kept.request.durability == "none":
        raise nothing_kept(run_id, "outputs")
    return keep({path: each.outputs for path, each in kept.done.items() if "+" not in path})


def nothing_kept(run_id: str, what: Literal["events", "checkpoints", "outputs"]) -> Conflict:
    """That a run does not keep what is asked for, and how one does."""
    how = ' or "background": true' if what == "events" else ""
    message = f'The run {run_id} keeps no {what}: begin it with "durability": "step"{how}.'
    return Conflict(message, code=_NOT_KEPT[what])


_NOT_KEPT: Final[Mapping[str, str]] = {
    "events": "events_not_kept",
    "checkpoints": "checkpoints_not_kept",
    "outputs": "outputs_not_kept",
}


async def _end_unattended(gateway: Gateway, run: RunRecord) -> bool:
    """Ends a run that no runner drives: a suspended one, or one whose runner has died. Whether it was so."""
    if gateway.journals is None:
        return False
    deadline = gateway.clock() if run.status == "suspended" else None
    try:
        taken = await gateway.journals.take(run.tenant, run.run_id, deadline=deadline)
        failure = RunCancelled("the run was cancelled while nobody was at work on it").as_failure()
        seconds = max(0.0, gateway.clock() - run.started)
        await taken.journal.append([RunFailed(failure, run.usage, seconds)], [])
    except (RunHeld, RunEnded, LeaseLost, UnknownRun):
        return False
    fault = RunFault(failure.kind, failure.message)
    await gateway.runs.write([structs.replace(run, status="cancelled", seconds=seconds, error=fault)])
    return True


def _public(run: R) -> R:
    """The run as a stranger may read it: what went wrong inside is for the log."""
    if run.error is None:
        return run
    answer = told(Failure(run.error.kind, run.error.message), run.run_id)
    return structs.replace(run, error=structs.replace(run.error, message=answer.message))
