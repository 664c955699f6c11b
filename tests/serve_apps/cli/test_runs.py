"""`clustergraph runs`."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.messages import Usage
from runtime.records.model import NodeRecord, RunFault, RunRecord, RunSummary
from serve_apps.api.runs import RunList
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.runs import BAR_COLUMNS, app, line_of, waterfall
from tests.serve_apps.cli.conftest import FakeGateway

RECORD = RunRecord(
    *("r-1", "acme", "rag", "1.2.0", "hash", "succeeded", 1_000.0, 1_030.0, 4.0, Usage(90, 10)),
    nodes=[
        NodeRecord("vector", "embed", "succeeded", 0.0, 1.0),
        NodeRecord("extra", "llm", "skipped", 1.0, reason="its condition does not hold"),
        *(NodeRecord(f"search[{item}].each", "retrieve", "succeeded", 1.0, 1.0) for item in range(9)),
        NodeRecord("few[0].each", "retrieve", "succeeded", 1.0, 0.5),
        NodeRecord(
            "answer", "llm", "succeeded", 2.0, 2.0, Usage(90, 10), attempts=2, fell_back_to="model tiny"
        ),
    ],
)


def run(gateway: FakeGateway, *arguments: str) -> str:
    environment = {"COLUMNS": "170", "CLUSTERGRAPH_URL": gateway.url, "CLUSTERGRAPH_KEY": "secret"}
    result = CliRunner(env=environment).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows(record: RunRecord) -> dict[str, list[str]]:
    """The cells of a waterfall, by the name of the node."""
    table = waterfall(record)
    columns = [[getattr(cell, "plain", cell) for cell in column.cells] for column in table.columns]
    return {cells[0]: list(cells[1:]) for cells in zip(*columns, strict=True)}


def test_bars_stand_where_the_nodes_ran() -> None:
    shown = rows(RECORD)
    quarter = BAR_COLUMNS // 4
    assert shown["vector"] == ["embed", "▇" * quarter, "1.00 s", "", ""]
    assert shown["answer"][1] == " " * 2 * quarter + "▇" * 2 * quarter
    assert shown["answer"][2:] == ["2.00 s", "100", "2 attempts: fell back to model tiny"]
    assert shown["extra"] == ["llm", "", "", "", "skipped: its condition does not hold"]


def test_many_runs_of_a_node_share_a_row_and_few_do_not() -> None:
    shown = rows(RECORD)
    quarter = BAR_COLUMNS // 4
    assert shown["search.each x9"][:3] == [
        "retrieve",
        " " * quarter + "░" * quarter,
        "9.00 s in all, longest 1.00 s",
    ]
    assert "few[0].each" in shown
    assert list(shown) == ["vector", "extra", "search.each x9", "few[0].each", "answer"]


def test_a_run_of_no_time_has_bars_all_the_same() -> None:
    still = msgspec.structs.replace(RECORD, seconds=0.0, nodes=[NodeRecord("a", "llm", "running")])
    assert rows(still)["a"] == ["llm", "", "under 1 ms", "", "running"]


def test_a_node_at_the_very_end_is_seen() -> None:
    late = msgspec.structs.replace(RECORD, nodes=[NodeRecord("a", "llm", "succeeded", 4.0, 0.0)])
    assert rows(late)["a"][1] == " " * (BAR_COLUMNS - 1) + "▇"


def test_show(gateway: FakeGateway) -> None:
    failed = msgspec.structs.replace(
        RECORD, status="failed", error=RunFault("NodeError", "it [broke]", "answer"), nodes_left_out=7
    )
    gateway.answer("GET /v1/runs/r-1", failed)
    shown = run(gateway, "show", "r-1")
    assert "rag 1.2.0, 1970-01-01 00:16:40: failed after 4.00 s, 100 tokens" in shown
    assert "answer: it [broke]" in shown
    assert "search.each x9" in shown
    assert "and 7 more" in shown


def test_list(gateway: FakeGateway) -> None:
    summary = RunSummary(**{name: getattr(RECORD, name) for name in RunSummary.__struct_fields__})
    gateway.answer(
        "GET /v1/runs?limit=2&graph=rag&status=succeeded", RunList([summary], has_more=True, last_id="r-1")
    )
    shown = run(gateway, *["list", "--graph", "rag", "--limit", "2", "--status", "succeeded"])
    assert all(word in shown for word in ("r-1", "1.2.0", "succeeded", "4.00", "100"))
    assert "older ones: --after r-1" in shown
    assert gateway.asked == [("GET /v1/runs?limit=2&graph=rag&status=succeeded", "Bearer secret")]


def test_cancel(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/runs/r-1/cancel", {"run_id": "r-1", "status": "cancelling"})
    assert run(gateway, "cancel", "r-1") == "r-1: cancelling\n"


ACCEPTED = {
    "run_id": "r-2",
    "graph": "rag",
    "status": "running",
    "links": {"self": "", "events": "", "cancel": "", "approvals": ""},
}
ANSWER = {
    "run_id": "r-2",
    "graph": "rag",
    "version": "1",
    "outputs": {"text": "so"},
    "usage": {"type": "usage", "prompt_tokens": 3, "completion_tokens": 2},
    "seconds": 1.0,
    "nodes": [],
    "nodes_left_out": 0,
    "status": "succeeded",
}


def told_by(gateway: FakeGateway) -> Any:
    """What the gateway was sent last."""
    return msgspec.json.decode(gateway.sent[-1][1])


def test_resume(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/runs/r-1/resume", ACCEPTED, 202)
    shown = run(gateway, "resume", "r-1", "--timeout", "30")
    assert "clustergraph runs follow r-2" in shown
    assert gateway.sent[-1][0]["x-request-timeout"] == "30"


def test_fork(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/runs/r-1/fork", ANSWER)
    shown = run(gateway, *(["fork", "r-1", "--from", "search[3].each", "--set"]), 'search[3].each.text="a=b"')
    assert '"text": "so"' in shown
    assert told_by(gateway) == {"from": "search[3].each", "outputs": {"text": "a=b"}}
    run(
        gateway,
        *["fork", "r-1", "--set", "answer.text=well", "--set", "answer.n=3", "-i", "top_k=2", "--background"],
    )
    assert told_by(gateway) == {
        "from": "answer",
        "outputs": {"text": "well", "n": 3},
        "inputs": {"top_k": 2},
        "background": True,
    }
    run(gateway, *["fork", "r-1", "--durability", "exit"])
    assert told_by(gateway) == {"from": None, "durability": "exit"}


@pytest.mark.parametrize("edit", ["other.text=x", "text=x", "answer.text"])
def test_a_fork_sets_outputs_of_one_node(gateway: FakeGateway, edit: str) -> None:
    with pytest.raises(CallFailed):
        run(gateway, "fork", "r-1", "--from", "answer", "--set", edit)


def test_follow(gateway: FakeGateway) -> None:
    events: list[dict[str, Any]] = [
        {"type": "run_resumed", "attempt": 2, "completed": 3},
        {"type": "node_delta", "node": "answer", "text": "so "},
        {"type": "node_skipped", "node": "extra", "reason": "its condition does not hold"},
        {"type": "node_waiting", "node": "review", "message": "May this be sent?"},
        {"type": "run_failed", "failure": {"message": "not that"}},
    ]
    stream = b"".join(
        b"id: %d\nevent: x\ndata: %b\n\n" % (number, msgspec.json.encode(event))
        for number, event in enumerate(events, 7)
    )
    gateway.streams["GET /v1/runs/r-1/events"] = [stream]
    environment = {"CLUSTERGRAPH_URL": gateway.url, "CLUSTERGRAPH_KEY": "secret"}
    result = CliRunner(env=environment).invoke(app, ["follow", "r-1", "--after", "6"])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "    7  run resumed attempt 2, 3 nodes were done",
        "    8  node delta answer 'so '",
        "    9  node skipped extra its condition does not hold",
        "   10  node waiting review May this be sent?",
        "   11  run failed not that",
    ]
    assert gateway.sent[-1][0]["last-event-id"] == "6"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"type": "run_suspended", "waiting": ["a", "b"]}, "run suspended waits for people at a, b"),
        ({"type": "run_finished", "outputs": {"text": "é"}}, 'run finished {"text": "é"}'),
        ({"type": "node_started", "node": "a", "kind": "llm"}, "node started a"),
    ],
)
def test_lines(event: dict[str, Any], line: str) -> None:
    assert line_of(event) == line


def test_a_waterfall_fits_a_terminal() -> None:
    written = io.StringIO()
    Console(width=140, file=written).print(waterfall(RECORD))
    lines = written.getvalue().splitlines()
    assert len([line for line in lines if "each x9" in line and "░" in line]) == 1
    assert max(map(len, lines)) <= 140
