"""The command line as a client of the gateway."""

from __future__ import annotations

import pytest

from runtime.records.model import RunRecord, RunSummary
from serve_apps.api.runs import CancelAnswer, RunList
from serve_apps.cli import calls
from serve_apps.cli.calls import CallFailed, GatewayClient
from tests.serve_apps.cli.conftest import FakeGateway

RECORD = RunRecord("r-1", "acme", "rag", "1", "hash", "succeeded", 1_000.0, 1_030.0, 1.5)


def test_a_run_comes_with_the_key(gateway: FakeGateway) -> None:
    gateway.answer("GET /v1/runs/r-1", RECORD)
    assert GatewayClient(gateway.url + "/v1/", "secret").run("r-1") == RECORD
    assert gateway.asked == [("GET /v1/runs/r-1", "Bearer secret")]


def test_a_list_says_only_what_was_given(gateway: FakeGateway) -> None:
    summary = RunSummary("r-1", "acme", "rag", "1", "hash", "succeeded", 1_000.0, 1_030.0)
    page = RunList([summary], has_more=True, last_id="r-1")
    gateway.answer("GET /v1/runs?limit=5", page)
    gateway.answer("GET /v1/runs?limit=5&graph=a+b&after=r-1", page)
    assert GatewayClient(gateway.url, "k").runs(5, None, None) == page
    assert GatewayClient(gateway.url, "k").runs(5, "a b", "r-1") == page


def test_cancel(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/runs/r-1/cancel", {"run_id": "r-1", "status": "cancelling"})
    assert GatewayClient(gateway.url, "k").cancel("r-1") == CancelAnswer("r-1", "cancelling")


def test_a_refusal_says_what_the_gateway_says(gateway: FakeGateway) -> None:
    gateway.answer("GET /v1/runs/x%2F..", {"error": {"message": "There is no run 'x'."}}, 404)
    with pytest.raises(CallFailed, match=r"^There is no run 'x'\.$"):
        GatewayClient(gateway.url, "k").run("x/..")


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"error": null}'])
def test_a_refusal_of_something_else(gateway: FakeGateway, body: bytes) -> None:
    gateway.answers["GET /v1/runs/r-1"] = (502, body)
    with pytest.raises(CallFailed, match="HTTP 502"):
        GatewayClient(gateway.url, "k").run("r-1")


def test_an_answer_of_something_else(gateway: FakeGateway) -> None:
    gateway.answer("GET /v1/runs/r-1", {"hello": "there"})
    with pytest.raises(CallFailed, match="is no gateway of this version"):
        GatewayClient(gateway.url, "k").run("r-1")


def test_nobody_there() -> None:
    with pytest.raises(CallFailed, match=r"there is no answer from http://127\.0\.0\.1:9: .*refused"):
        GatewayClient("http://127.0.0.1:9", "k").run("r-1")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host", "localhost:8000"])
def test_only_http(url: str) -> None:
    with pytest.raises(CallFailed, match="begins with http"):
        GatewayClient(url, "k")


def test_without_a_key_the_demo_key_is_used(
    gateway: FakeGateway, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "deploy.yaml"
    config.write_text("data_dir: .\nmodels: [{name: tiny, engine: fake}]\n")
    monkeypatch.setattr(calls, "QUICKSTART", config)
    with pytest.raises(CallFailed, match="CLUSTERGRAPH_KEY"):
        GatewayClient(gateway.url, None)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "demo-key").write_text("demo")
    gateway.answer("GET /v1/runs/r-1", RECORD)
    GatewayClient(gateway.url, None).run("r-1")
    assert gateway.asked[0][1] == "Bearer demo"


def event(number: int, kind: str) -> bytes:
    return b'id: %d\nevent: %b\ndata: {"type": "%b"}\n\n' % (number, kind.encode(), kind.encode())


def test_events_go_on_where_a_connection_was_lost(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "RECONNECT_PAUSE_S", 0.0)
    error = b'event: error\ndata: {"error": {"message": "not in time"}}\n\n'
    gateway.streams["GET /v1/runs/r-1/events"] = [
        event(3, "node_started") + b": keep-alive\n\n",
        event(4, "node_finished") + error,
        event(5, "run_finished"),
    ]
    told = list(GatewayClient(gateway.url, "k").events("r-1", 2))
    assert [(number, each["type"]) for number, each in told] == [
        (3, "node_started"),
        (4, "node_finished"),
        (5, "run_finished"),
    ]
    assert [headers["last-event-id"] for headers, _ in gateway.sent] == ["2", "3", "4"]


def test_events_that_never_come(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "RECONNECT_PAUSE_S", 0.0)
    client = GatewayClient(gateway.url, "k")
    gateway.answer("GET /v1/runs/r-1/events", {"error": {"message": "There is no run 'r-1'."}}, 404)
    with pytest.raises(CallFailed, match="There is no run"):
        list(client.events("r-1"))
    assert len(gateway.asked) == 1
    gateway.streams["GET /v1/runs/r-2/events"] = [event(1, "run_started"), *[b""] * 9]
    with pytest.raises(CallFailed, match="ended before the run"):
        list(client.events("r-2"))
    assert len(gateway.asked) == 1 + 1 + calls.RECONNECTS
