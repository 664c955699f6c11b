"""`clustergraph runs`."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console
from typer.testing import CliRunner

from cluster.messages import Usage
from runtime.records.model import NodeRecord, RunFault, RunRecord, RunSummary
from serve_apps.api.runs import RunList
from serve_apps.cli.runs import BAR_COLUMNS, app, waterfall
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
    gateway.answer("GET /v1/runs?limit=2&graph=rag", RunList([summary], has_more=True, last_id="r-1"))
    shown = run(gateway, "list", "--graph", "rag", "--limit", "2")
    assert all(word in shown for word in ("r-1", "1.2.0", "succeeded", "4.00", "100"))
    assert "older ones: --after r-1" in shown
    assert gateway.asked == [("GET /v1/runs?limit=2&graph=rag", "Bearer secret")]


def test_cancel(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/runs/r-1/cancel", {"run_id": "r-1", "status": "cancelling"})
    assert run(gateway, "cancel", "r-1") == "r-1: cancelling\n"


def test_a_waterfall_fits_a_terminal() -> None:
    written = io.StringIO()
    Console(width=140, file=written).print(waterfall(RECORD))
    lines = written.getvalue().splitlines()
    assert len([line for line in lines if "each x9" in line and "░" in line]) == 1
    assert max(map(len, lines)) <= 140
