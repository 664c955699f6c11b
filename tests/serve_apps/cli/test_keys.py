"""`clustergraph keys`, as it asks the gateway."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from serve_apps.cli.calls import CallFailed
from serve_apps.cli.keys import app
from tests.serve_apps.cli.conftest import FakeGateway

KEY: dict[str, Any] = {
    "id": "k1",
    "name": "ci",
    "organisation": "acme",
    "team": "lab",
    "role": "service",
    "state": "active",
    "created": 1.0,
    "created_by": None,
    "expires": 86_400.0,
    "last_used": None,
    "old_secret_until": None,
    "models": ["a", "graph/b"],
    "endpoints": None,
    "functions": False,
    "limits": dict.fromkeys(
        ("tokens_per_minute", "concurrent_requests", "tokens_per_day", "dollars_per_month"), None
    )
    | {"requests_per_minute": 5},
    "limits_by_model": {},
    "object": "key",
}


def run(gateway: FakeGateway, *arguments: str) -> str:
    environment = {"COLUMNS": "200", "CLUSTERGRAPH_URL": gateway.url, "CLUSTERGRAPH_KEY": "secret"}
    result = CliRunner(env=environment).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def sent(gateway: FakeGateway) -> dict[str, Any]:
    """The body of the last call."""
    body: dict[str, Any] = msgspec.json.decode(gateway.sent[-1][1])
    return body


def test_a_new_key_alone_is_printed(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/admin/keys", {**KEY, "key": "cgh_k1_s"}, 201)
    assert run(gateway, "create", "ci") == "cgh_k1_s\n"
    assert sent(gateway) == {"name": "ci"}


def test_what_is_said_of_a_new_key_is_sent(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/admin/keys", {**KEY, "key": "cgh_k1_s"}, 201)
    typed = "create ci --org acme --team lab --role member --model a --model graph/b --endpoint /v1/chat/* "
    typed += "--functions --expires-days 1 --rpm 5 --tpm 6 --concurrent 7 --tokens-per-day 8"
    run(gateway, *typed.split(), "--dollars-per-month", "0.000000001")
    body = sent(gateway)
    assert abs(body.pop("expires") - time.time() - 86_400) < 600
    assert body == {
        "name": "ci",
        "organisation": "acme",
        "team": "lab",
        "role": "member",
        "functions": True,
        "models": ["a", "graph/b"],
        "endpoints": ["/v1/chat/*"],
        "limits": {
            "requests_per_minute": 5,
            "tokens_per_minute": 6,
            "concurrent_requests": 7,
            "tokens_per_day": 8,
            "dollars_per_month": "0.000000001",
        },
    }


def test_a_table_of_keys(gateway: FakeGateway) -> None:
    page = {"data": [KEY], "has_more": True, "last_id": "k1", "object": "list"}
    gateway.answer("GET /v1/admin/keys?team=lab&limit=1", page)
    shown = run(gateway, "list", "--team", "lab", "--limit", "1")
    for part in ("k1", "ci", "acme", "lab", "5 requests/min", "graph/b", "1970-01-02 00:00:00", "active"):
        assert part in shown
    assert "--after k1" in shown
    assert msgspec.json.decode(run(gateway, "list", "--team", "lab", "--limit", "1", "--json")) == page


def test_only_what_is_said_is_changed(gateway: FakeGateway) -> None:
    gateway.answer("PATCH /v1/admin/keys/k1", KEY)
    for typed, body in (
        ("change k1 --name x", {"name": "x"}),
        ("change k1 --model all --endpoint all --expires-days none --no-functions", None),
        ("limits k1 --rpm none", {"limits": {"requests_per_minute": None}}),
    ):
        run(gateway, *typed.split())
        everything = {"models": None, "endpoints": None, "expires": None, "functions": False}
        assert sent(gateway) == (everything if body is None else body)


def test_a_new_secret_with_an_overlap(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/admin/keys/k1/rotate", {**KEY, "key": "cgh_k1_t"})
    assert run(gateway, "rotate", "k1", "--overlap", "24h") == "cgh_k1_t\n"
    assert sent(gateway) == {"overlap_seconds": 86_400.0}
    run(gateway, "rotate", "k1")
    assert sent(gateway) == {"overlap_seconds": 0.0}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("rotate k1 --overlap long", "--overlap: expected a length of time"),
        ("create k --expires-days soon", "--expires-days: a number of days"),
        ("create k --expires-days nan", "--expires-days: a number of days"),
        ("limits k1 --tpm x", "--tpm: a whole number"),
        ("get k1", "There is no key 'k1'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(gateway: FakeGateway, typed: str, told: str) -> None:
    gateway.answer("GET /v1/admin/keys/k1", {"error": {"message": "There is no key 'k1'."}}, 404)
    with pytest.raises(CallFailed, match=told):
        run(gateway, *typed.split())
