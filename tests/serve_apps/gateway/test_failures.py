"""The errors of the packages below, as answers."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from cluster.errors import EngineFailed, InvalidCall, Overloaded
from cluster.messages import Failure
from runtime.context.errors import ContextConflict, ContextTooLarge
from runtime.errors import InputProblem, InvalidInputs, NodeError, RunCancelled, UnknownGraph
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.failures import answer_to, answer_to_failure


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadRequest("x"), 400, "invalid_request"),
        (InvalidCall("x", param="n"), 400, "invalid_request"),
        (InvalidName("x"), 400, "invalid_name"),
        (UnknownGraph("x"), 404, "graph_not_found"),
        (ContextConflict(3), 409, "context_conflict"),
        (RunCancelled("x"), 409, "run_cancelled"),
        (ContextTooLarge(10, 2), 413, "context_too_large"),
        (InvalidInputs([InputProblem("q", "is required")]), 422, "unprocessable"),
        (NodeError("x"), 422, "node_failed"),
        (Overloaded("x"), 503, "overloaded"),
        (EngineFailed("x"), 503, "engine_failed"),
        (StoreUnavailable("x"), 503, "store_unavailable"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
def test_answers(error: Exception, status: int, code: str) -> None:
    answer = answer_to(error, "id-1")
    assert (answer.status, answer.code) == (status, code)
    assert (b"retry-after" in dict(answer.headers())) == (status == 503)


def test_what_the_cluster_knows_is_passed_on() -> None:
    assert answer_to(InvalidCall("no images", param="messages"), "id").as_object() == {
        "message": "no images",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "invalid_request",
    }
    assert dict(answer_to(Overloaded("full", retry_after_s=6.2), "id").headers())[b"retry-after"] == b"7"


def test_what_is_not_foreseen_is_logged_without_its_text() -> None:
    with capture_logs() as logged:
        try:
            raise KeyError("secret")
        except KeyError as error:
            answer = answer_to(error, "id-1")
    assert "id-1" in answer.message
    assert (logged[0]["error"], logged[0]["request_id"]) == ("KeyError", "id-1")
    assert "test_failures.py" in logged[0]["where"][0]
    assert "secret" not in str(logged)
    with capture_logs() as logged:
        assert answer_to_failure(Failure("Strange", "secret"), "id-2").status == 500
    assert (logged[0]["kind"], "secret" in str(logged)) == ("Strange", False)
