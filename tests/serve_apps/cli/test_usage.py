"""`clustergraph usage`."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner

from serve_apps.accounting.queries import UsageRow
from serve_apps.api.usage import UsageReport
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.usage import usage
from tests.serve_apps.cli.conftest import FakeGateway


def row(team: str, **fields: Any) -> UsageRow:
    usual: dict[str, Any] = {
        "requests": 3,
        "cut": 1,
        "failed": 0,
        "input_tokens": 12_345,
        "cached_tokens": 0,
        "output_tokens": 5,
        "engine_seconds": 1.25,
        "cost_usd": "0.000000012",
        "mean_seconds": 0.5,
        "mean_first_token_seconds": None,
    }
    return UsageRow(group={"team": team}, **(usual | fields))


def report(*rows: UsageRow, next_offset: int | None = None) -> UsageReport:
    return UsageReport(
        data=list(rows),
        start="2027-01-15T00:00:00Z",
        end="2027-01-16T00:00:00Z",
        folded_until="2027-01-15T12:00:00Z",
        has_more=next_offset is not None,
        next_offset=next_offset,
    )


def run(gateway: FakeGateway, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(usage)
    environment = {"COLUMNS": "170", "CLUSTERGRAPH_URL": gateway.url, "CLUSTERGRAPH_KEY": "secret"}
    result = CliRunner(env=environment).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table(gateway: FakeGateway) -> None:
    gateway.answer("GET /v1/usage?group_by=team&limit=50", report(row("blue"), row(""), next_offset=50))
    shown = run(gateway, "--by", "team")
    assert "2027-01-15T00:00:00Z to 2027-01-16T00:00:00Z" in shown
    blue = next(line for line in shown.splitlines() if "blue" in line)
    assert [cell.strip() for cell in blue.strip("│").split("│")] == [
        *("blue", "3 (1 cut)", "12,345", "0", "5", "1.2", "0.000000012", "0.50", "-"),
    ]
    assert "ended before 2027-01-15T12:00:00Z" in shown
    assert "--export" in shown


def test_json_is_what_the_gateway_says(gateway: FakeGateway) -> None:
    gateway.answer("GET /v1/usage?from=2027-01-15&to=2027-01-16&team=blue&limit=50", report(row("blue")))
    shown = run(gateway, "--from", "2027-01-15", "--to", "2027-01-16", "--of", "team=blue", "--json")
    assert msgspec.json.decode(shown, type=UsageReport) == report(row("blue"))


@pytest.fixture
def two_pages(gateway: FakeGateway) -> FakeGateway:
    first = report(row("blue"), row("=cmd()"), next_offset=1000)
    gateway.answer("GET /v1/usage?group_by=team&limit=1000&offset=0", first)
    gateway.answer(
        "GET /v1/usage?group_by=team&limit=1000&offset=1000", report(row("red", mean_seconds=None))
    )
    return gateway


def test_all_pages_are_written_as_csv(two_pages: FakeGateway, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    assert run(two_pages, "--by", "team", "--export", str(file)) == f"3 rows in {file}\n"
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [each["team"] for each in rows] == ["blue", "'=cmd()", "red"]
    assert (rows[0]["input_tokens"], rows[0]["cost_usd"], rows[2]["mean_seconds"]) == (
        "12345",
        "0.000000012",
        "",
    )


def test_all_pages_are_written_as_parquet(two_pages: FakeGateway, tmp_path: Path) -> None:
    file = tmp_path / "usage.parquet"
    run(two_pages, "--by", "team", "--export", str(file))
    rows = parquet.read_table(file).to_pylist()
    assert [each["team"] for each in rows] == ["blue", "=cmd()", "red"]
    assert (rows[0]["input_tokens"], rows[0]["cost_usd"]) == (12_345, Decimal("0.000000012"))
    assert [each["mean_seconds"] for each in rows] == [0.5, 0.5, None]


def test_other_files_and_filters_are_refused(two_pages: FakeGateway, tmp_path: Path) -> None:
    with pytest.raises(CallFailed, match=r"usage\.xlsx"):
        run(two_pages, "--by", "team", "--export", str(tmp_path / "usage.xlsx"))
    with pytest.raises(CallFailed, match="NAME=VALUE"):
        run(two_pages, "--of", "blue")
