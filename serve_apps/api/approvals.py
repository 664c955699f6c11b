"""`/v1/runs/{run_id}/approvals`: what a run asks of people, and their decisions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import structlog
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Meta, Struct, UnsetType

from cluster.errors import ClusterError
from runtime.approvals.model import MAX_COMMENT_CHARS, MAX_VALUE_BYTES, Approval, Decision, fits
from runtime.errors import RunEnded, RunHeld, UnknownRun
from runtime.store.errors import StoreError
from serve_apps.api.auditing import deed_of
from serve_apps.api.common import caller_of, exchange_of, json_response
from serve_apps.api.run_actions import go_on
from serve_apps.api.runs import find_run
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest, Conflict, GatewayError, NotFound
from serve_apps.gateway.rights import GRAPH_PREFIX, may_use
from serve_apps.translators.decoding import BodyDecoder, check_free_form


class ApprovalBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{run_id}/approvals/{node}`."""

    approved: bool
    comment: Annotated[str, Meta(max_length=MAX_COMMENT_CHARS)] | None = None
    value: Any | UnsetType = UNSET
    """In place of the value that was shown, of the same type. Absent: that goes on as it is."""


class ApprovalObject(Struct, frozen=True):
    """Something a run asks of a person."""

    node: str
    """Path of the node that waits."""
    message: str
    value: Any
    """What the person looks at."""
    asked: float
    """Unix seconds."""
    until: float
    """Unix seconds. The node waits no longer."""
    status: Literal["waiting", "approved", "rejected"]
    comment: str | None = None
    decided: float | None = None
    """Unix seconds."""
    by: str | None = None
    """Id of the key that the decision came with."""


class ApprovalList(Struct, frozen=True):
    """What a run asks of people, the oldest question first."""

    data: list[ApprovalObject]
    object: Literal["list"] = "list"


class ApprovalAnswer(Struct, frozen=True):
    """A decision that was taken."""

    run_id: str
    node: str
    status: Literal["approved", "rejected"]
    run_status: Literal["running", "suspended"]
    """`suspended`: the decision is kept, and the run goes on when somebody resumes it; this time there was no
    quota, or nobody, to go on with it."""


_decode = BodyDecoder(ApprovalBody).decode
_log = structlog.get_logger(__name__)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["runs"])

    @routes.get("/v1/runs/{run_id}/approvals")
    async def list_approvals(run_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        found = await _approvals(gateway, caller, run_id)
        return json_response(ApprovalList([_public(approval) for approval in found]))

    @routes.post("/v1/runs/{run_id}/approvals/{node}")
    async def decide(run_id: str, node: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        body = _decode(await exchange_of(request).body(gateway.settings.max_body_bytes))
        decision = Decision(body.approved, body.comment, _given(body), gateway.clock(), caller.id)
        approval = _decidable(await _approvals(gateway, caller, run_id), node, decision)
        exchange = exchange_of(request)
        deed = deed_of(
            *(gateway, exchange, caller, "approval.decide", f"run/{run_id}/{node}"),
            before=approval,
            after=Approval(approval.asked, decision),
        )
        async with gateway.audit.changing(deed):
            outcome = await gateway.approvals.decide(caller.tenant, run_id, node, decision)
            if outcome != "taken":
                raise _refusal(outcome, node)
        woken = await _wake(Request(gateway, exchange, caller), run_id)
        return json_response(ApprovalAnswer(run_id, node, _status(decision), woken))

    return routes


def _decidable(found: list[Approval], node: str, decision: Decision) -> Approval:
    """What waits at the node. Raises what is wrong with the decision, before anything is written of it."""
    approval = next((each for each in found if each.asked.node == node), None)
    if approval is None:
        raise _refusal("unknown", node)
    if approval.decision is not None:
        raise _refusal("late", node)
    if not fits(approval.asked, decision):
        raise _refusal("unfit", node)
    return approval


def _refusal(outcome: Literal["unknown", "late", "unfit"], node: str) -> GatewayError:
    match outcome:
        case "unknown":
            return NotFound(f"Nothing waits at {node[:100]!r}.", code="approval_not_found")
        case "late":
            return Conflict("This was decided already.", code="already_decided")
        case "unfit":
            return BadRequest(
                "'value' must be of the type of what was shown.", param="value", code="invalid_value"
            )


async def _approvals(gateway: Gateway, caller: Caller, run_id: str) -> list[Approval]:
    """What a run of the key's tenant asks, where the key may use its graph.

    The questions say whose they are: the record of a run is written beside it, and may come after them.
    Raises `NotFound`, `StoreUnavailable`.
    """
    found = await gateway.approvals.of_run(caller.tenant, run_id)
    if not found or not may_use(caller, GRAPH_PREFIX + found[0].asked.graph):
        await find_run(gateway, caller, run_id)
    return found


async def _wake(request: Request, run_id: str) -> Literal["running", "suspended"]:
    """Has the run go on if it was suspended. How it is then."""
    gateway, _, caller = request
    if gateway.journals is None:
        return "running"
    try:
        if (await gateway.journals.head(caller.tenant, run_id)).state == "suspended":
            kept = await gateway.journals.read(caller.tenant, run_id)
            await go_on(request, kept, None, gateway.settings.max_timeout_s)
    except (UnknownRun, RunHeld, RunEnded):
        return "running"  # it keeps nothing, or somebody was faster
    except (GatewayError, ClusterError, StoreError) as error:
        _log.warning("run_not_resumed", run_id=run_id, error=type(error).__name__)
        return "suspended"
    return "running"


def _given(body: ApprovalBody) -> Any:
    """The value in place of the one shown. Raises `BadRequest`."""
    if body.value is not UNSET:
        check_free_form(body.value, "value")
        if len(msgspec.msgpack.encode(body.value)) > MAX_VALUE_BYTES:
            raise BadRequest(f"'value' has more than {MAX_VALUE_BYTES} bytes.", param="value")
    return body.value


def _status(decision: Decision) -> Literal["approved", "rejected"]:
    return "approved" if decision.approved else "rejected"


def _public(approval: Approval) -> ApprovalObject:
    asked, decision = approval.asked, approval.decision
    shown = (asked.node, asked.message, asked.value, asked.asked, asked.until)
    if decision is None:
        return ApprovalObject(*shown, "waiting")
    return ApprovalObject(*shown, _status(decision), decision.comment, decision.decided, decision.by)
