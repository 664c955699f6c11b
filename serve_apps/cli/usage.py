"""`clustergraph usage`: what was used and what it cost, as a table, as JSON, or in a file."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from serve_apps.accounting.queries import MAX_ROWS, UsageRow
from serve_apps.api.usage import UsageReport
from serve_apps.cli.calls import CallFailed, GatewayClient
from serve_apps.cli.options import KEY, LOCAL_URL, URL

MAX_EXPORTED: Final = 1_000_000
"""Rows of a file."""
_COUNTS: Final = tuple(name for name in UsageRow.__struct_fields__ if name != "group")


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(help="One row for each team, key, model, tag.NAME, ... as of the API; may be repeated."),
    ] = None,
    of: Annotated[
        list[str] | None, typer.Option(help="Only what is so, as team=blue; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="As 2026-01-31 or 2026-01-31T12:00Z. Default: 30 days back.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Default: the end of today, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="Rows that are shown.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the gateway answers.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write all rows to this file, by its name .csv or .parquet.")
    ] = None,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """Show what was used and what it cost, as far as the key may see it."""
    groups = by or []
    asked = {"from": since, "to": until, "group_by": ",".join(groups) or None, **_filters(of or [])}
    client = GatewayClient(url, key)
    if export is not None:
        typer.echo(f"{_write(export, groups, _rows(client, asked))} rows in {export}")
        return
    report = client.usage({**asked, "limit": limit})
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        _show(report, groups)


def _filters(given: Sequence[str]) -> dict[str, str]:
    """Raises `CallFailed`."""
    filters: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise CallFailed(f"--of takes NAME=VALUE, as team=blue, not {each!r}")
        filters[name] = value
    return filters


def _show(report: UsageReport, groups: Sequence[str]) -> None:
    right = ("requests", "input", "cached", "output", "engine s", "US dollars", "seconds", "first token")
    table = Table(*groups, title=f"{report.start} to {report.end}")
    for name in right:
        table.add_column(name, justify="right")
    for row in report.data:
        table.add_row(
            *(row.group[name] or "-" for name in groups),
            _requests(row),
            *(f"{count:,}" for count in (row.input_tokens, row.cached_tokens, row.output_tokens)),
            f"{row.engine_seconds:,.1f}",
            row.cost_usd,
            *(
                "-" if mean is None else f"{mean:.2f}"
                for mean in (row.mean_seconds, row.mean_first_token_seconds)
            ),
        )
    Console().print(table)
    typer.echo(f"Calls that ended before {report.folded_until or 'now'} are in it.")
    if report.has_more:
        typer.echo(f"There are more than {len(report.data)} rows: --export FILE writes them all.")


def _requests(row: UsageRow) -> str:
    ends = [f"{count} {end}" for end, count in (("cut", row.cut), ("failed", row.failed)) if count]
    return f"{row.requests} ({', '.join(ends)})" if ends else str(row.requests)


def _rows(client: GatewayClient, asked: Mapping[str, Any]) -> Iterator[UsageRow]:
    """All pages. Raises `CallFailed`."""
    offset: int | None = 0
    while offset is not None:
        if offset >= MAX_EXPORTED:
            raise CallFailed(f"there are more than {MAX_EXPORTED} rows: ask for less time")
        page = client.usage({**asked, "limit": MAX_ROWS, "offset": offset})
        yield from page.data
        offset = page.next_offset


def _write(file: Path, groups: Sequence[str], rows: Iterator[UsageRow]) -> int:
    """How many rows were written. Raises `CallFailed`."""
    kept = [{**row.group, **{name: getattr(row, name) for name in _COUNTS}} for row in rows]
    columns = [*groups, *_COUNTS]
    if file.suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as text:
            writer = csv.DictWriter(text, columns)
            writer.writeheader()
            writer.writerows({name: _harmless(value) for name, value in row.items()} for row in kept)
    elif file.suffix == ".parquet":
        _write_parquet(file, groups, kept)
    else:
        raise CallFailed(f"--export takes a file that ends in .csv or .parquet, not {file.name!r}")
    return len(kept)


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet does not take for a formula: tags are whatever a client says."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _write_parquet(file: Path, groups: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    arrow = importlib.import_module("pyarrow")  # a third of a second that no other command should take
    parquet = importlib.import_module("pyarrow.parquet")
    kinds = {
        **dict.fromkeys(groups, arrow.string()),
        **dict.fromkeys(_COUNTS, arrow.int64()),
        **dict.fromkeys(("engine_seconds", "mean_seconds", "mean_first_token_seconds"), arrow.float64()),
        "cost_usd": arrow.decimal128(38, 9),
    }
    columns = {
        name: arrow.array([row[name] for row in rows], arrow.string()).cast(kind)
        if name == "cost_usd"
        else arrow.array([row[name] for row in rows], kind)
        for name, kind in kinds.items()
    }
    parquet.write_table(arrow.table(columns), file)
