"""The errors of the packages below, as answers.

Who asked wrongly gets a 4xx that says what to change; who asked in a bad moment gets a 503 that says when
to come back; everything else is a 500 whose reason only the log knows.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

import structlog

from cluster.errors import ClusterError
from cluster.messages import Failure
from runtime.context.errors import ContextConflict, ContextTooLarge
from runtime.errors import InvalidInputs
from runtime.records.model import LOST
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.audit.model import AuditBroken, WrongAnchor
from serve_apps.gateway.errors import (
    BadRequest,
    BodyTooLarge,
    Conflict,
    GatewayError,
    InternalError,
    NotFound,
    RequestTimedOut,
    Unavailable,
    Unprocessable,
)

RETRY_AFTER_S = 1.0
"""Told when whoever failed does not know better."""

_log = structlog.get_logger(__name__)


def answer_to(error: Exception, request_id: str) -> GatewayError:
    """What to tell the client. What is not foreseen is logged, without the exception's own text: it may
    quote what the client sent."""
    match error:
        case GatewayError():
            return error
        case InvalidInputs():
            return invalid_inputs(error)
        case ClusterError():
            return answer_to_failure(error.as_failure(), request_id)
        case StoreUnavailable():
            return Unavailable(
                "The store cannot be reached.", code="store_unavailable", retry_after_s=RETRY_AFTER_S
            )
        case InvalidName():
            return BadRequest(str(error), code="invalid_name")
        case AuditBroken():
            return Unavailable(
                "The audit log is not as it was left, so nothing may be changed: verify it.",
                code="audit_log_broken",
            )
        case WrongAnchor():
            return BadRequest(str(error), param="anchor", code="invalid_value")
        case ContextConflict():
            return Conflict(str(error), code="context_conflict")
        case ContextTooLarge():
            return BodyTooLarge(str(error), code="context_too_large")
    _log.error(
        "request_failed",
        request_id=request_id,
        error=type(error).__name__,
        where=[
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ],
    )
    return InternalError(f"The gateway failed to answer. Quote request id {request_id} to its operator.")


def answer_to_failure(failure: Failure, request_id: str) -> GatewayError:
    """What to tell the client of a call or run that ended in a `Failure`."""
    if failure.kind not in _ANSWERS:
        _log.error("call_failed", request_id=request_id, kind=failure.kind)
    return told(failure, request_id)


def told(failure: Failure, request_id: str) -> GatewayError:
    """What a stranger may know of a `Failure`, however often it is asked for."""
    make = _ANSWERS.get(failure.kind)
    if make is None:
        return InternalError(f"The call failed. Quote request id {request_id} to its operator.")
    return make(failure)


def invalid_inputs(error: InvalidInputs) -> Unprocessable:
    return Unprocessable(f"The inputs do not fit the graph. {error.message}", param=f"inputs.{error.param}")


def _unavailable(message: str | None, code: str) -> Callable[[Failure], GatewayError]:
    def make(failure: Failure) -> GatewayError:
        return Unavailable(
            message or failure.message, code=code, retry_after_s=failure.retry_after_s or RETRY_AFTER_S
        )

    return make


_ANSWERS: dict[str, Callable[[Failure], GatewayError]] = {
    "InvalidCall": lambda failure: BadRequest(failure.message, param=failure.param),
    "DeadlineExceeded": lambda failure: RequestTimedOut(failure.message),
    "Overloaded": _unavailable(None, "overloaded"),
    "ModelUnavailable": _unavailable(None, "model_unavailable"),
    "ReplicaLost": _unavailable("The replica at work on this call was lost.", "replica_lost"),
    "EngineFailed": _unavailable("The engine failed at this call.", "engine_failed"),
    "InvalidInputs": lambda failure: Unprocessable(
        f"The inputs do not fit the graph. {failure.message}",
        param=f"inputs.{failure.param}" if failure.param else None,
    ),
    "UnknownGraph": lambda failure: NotFound(failure.message, code="graph_not_found"),
    "UnknownRun": lambda failure: NotFound(failure.message, code="run_not_found"),
    "RunExists": lambda failure: Conflict(failure.message, code="run_exists"),
    "RunEnded": lambda failure: Conflict(failure.message, code="run_ended"),
    "RunHeld": lambda failure: Conflict(failure.message, code="run_running"),
    "TooMuchToKeep": lambda failure: Unprocessable(failure.message, code="too_much_to_keep"),
    "BudgetExceeded": lambda failure: Unprocessable(failure.message, code="token_budget_exceeded"),
    "RunCancelled": lambda failure: Conflict(failure.message, code="run_cancelled"),
    LOST: _unavailable(None, "run_lost"),
    "NodeError": lambda failure: Unprocessable(failure.message, param=failure.param, code="node_failed"),
}
