"""What was used, asked of the tables: sums by whatever somebody wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Engine, Select, Table, func, select

from serve_apps.accounting.folding import DAY_S, HOUR_S, tags_text
from serve_apps.accounting.schema import COUNTS, days, hours

GroupName = Literal["organisation", "team", "key", "graph", "model", "node", "day", "hour"]
GROUPS: Final[tuple[str, ...]] = get_args(GroupName)
TAG_GROUP: Final = "tag."
"""Begins the name of a group by the values of one tag: `tag.project`."""
MAX_ROWS: Final = 1000
"""Of one page."""
MAX_OFFSET: Final = 1_000_000
MAX_SCANNED: Final = 200_000
"""Sums that are read one by one for a question about tags."""

_COLUMNS: Final = {
    "organisation": "tenant",
    "team": "team",
    "key": "caller",
    "graph": "graph",
    "model": "model",
    "node": "node",
}


class TooMuch(Exception):
    """A question about tags would read more than `MAX_SCANNED` sums."""


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody wants to know."""

    start: int
    """Unix seconds, of a full hour; the first that counts."""
    end: int
    """Unix seconds, of a full hour; the first that does not count any more."""
    group_by: list[str] = []
    """Any of `GROUPS`, and `tag.NAME`."""
    where: dict[str, str] = {}
    """By name as in `group_by`, `day` and `hour` excepted: only what is so."""
    limit: int = MAX_ROWS
    offset: int = 0


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of one group."""

    group: dict[str, str]
    """By name as asked for. Days as `2026-01-31`, hours as `2026-01-31T23:00Z`."""
    requests: int
    """A call of a graph is one, in the row of the graph without node and model."""
    cut: int
    """Of the requests: whose client left, or whose time was over."""
    failed: int
    """Of the requests: all others that did not end well."""
    input_tokens: int
    """Of prompts, cached ones included."""
    cached_tokens: int
    output_tokens: int
    engine_seconds: float
    cost_usd: str
    """A decimal number with nine places: exact."""
    mean_seconds: float | None
    """Of a request."""
    mean_first_token_seconds: float | None
    """Until the first text came, of requests that were streamed."""


class UsagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows."""

    rows: list[UsageRow]
    more: bool


def ask(engine: Engine, query: UsageQuery) -> UsagePage:
    """The answer, in the order of the groups. Raises `TooMuch`, `SQLAlchemyError`."""
    tags = [name for name in (*query.group_by, *query.where) if name.startswith(TAG_GROUP)]
    rows = _by_tags(engine, query) if tags else _by_columns(engine, query)
    return UsagePage(rows=rows[: query.limit], more=len(rows) > query.limit)


def table_of(query: UsageQuery) -> Table:
    """Days where they are enough: they are fewer, and kept for longer."""
    whole = query.start % DAY_S == 0 and query.end % DAY_S == 0
    return days if whole and "hour" not in query.group_by else hours


def _by_columns(engine: Engine, query: UsageQuery) -> list[UsageRow]:
    groups = [_column(table_of(query), name) for name in query.group_by]
    asked = _sums(query, groups).order_by(*groups).limit(query.limit + 1).offset(query.offset)
    with engine.connect() as connection:
        found = connection.execute(asked).all()
    width = len(groups)
    return [
        _shown(query.group_by, row[:width], row[width:])
        for row in found
        if any(row[width:]) or width  # sums over nothing at all are one row of nothing
    ]


def _by_tags(engine: Engine, query: UsageQuery) -> list[UsageRow]:
    """Groups that depend on tags are put together here: no two databases read JSON in the same way."""
    table = table_of(query)
    plain = [name for name in query.group_by if not name.startswith(TAG_GROUP)]
    asked = _sums(query, [*(_column(table, name) for name in plain), table.c.tags])
    merged: dict[tuple[Any, ...], list[int]] = {}
    with engine.connect() as connection:
        found = connection.execute(asked.limit(MAX_SCANNED + 1)).all()
    if len(found) > MAX_SCANNED:
        raise TooMuch
    for row in found:
        values, tags, counts = row[: len(plain)], msgspec.json.decode(row[len(plain)]), row[len(plain) + 1 :]
        if not _tagged(query, tags):
            continue
        sums = merged.setdefault(tuple(_values(query.group_by, values, tags)), [0] * len(COUNTS))
        for index, count in enumerate(counts):
            sums[index] += int(count)
    chosen = sorted(merged)[query.offset : query.offset + query.limit + 1]
    return [_shown(query.group_by, group, merged[group]) for group in chosen]


def _sums(query: UsageQuery, groups: Sequence[ColumnElement[Any]]) -> Select[Any]:
    table = table_of(query)
    counts = [func.coalesce(func.sum(table.c[name]), 0) for name in COUNTS]
    asked = select(*groups, *counts).where(table.c.start >= query.start, table.c.start < query.end)
    for name, value in query.where.items():
        if name.startswith(TAG_GROUP):
            pair = tags_text({name.removeprefix(TAG_GROUP): value})[1:-1]
            asked = asked.where(table.c.tags.contains(pair, autoescape=True))
        else:
            asked = asked.where(table.c[_COLUMNS[name]] == value)
    return asked.group_by(*groups) if groups else asked


def _column(table: Table, name: str) -> ColumnElement[Any]:
    if name == "hour" or (name == "day" and table is days):
        return table.c.start
    if name == "day":
        return table.c.start - table.c.start % DAY_S
    return table.c[_COLUMNS[name]]


def _tagged(query: UsageQuery, tags: dict[str, str]) -> bool:
    """A database may have found a pair without looking at upper and lower case."""
    return all(
        tags.get(name.removeprefix(TAG_GROUP)) == value
        for name, value in query.where.items()
        if name.startswith(TAG_GROUP)
    )


def _values(groups: Sequence[str], values: Sequence[Any], tags: dict[str, str]) -> Iterator[Any]:
    plain = iter(values)
    for name in groups:
        if name.startswith(TAG_GROUP):
            yield tags.get(name.removeprefix(TAG_GROUP), "")
        else:
            yield next(plain)


def _shown(groups: Sequence[str], values: Sequence[Any], counts: Sequence[Any]) -> UsageRow:
    at = dict(zip(COUNTS, map(int, counts), strict=True))
    requests, first_tokens = at["requests"], at["first_tokens"]
    return UsageRow(
        group={name: _told(name, value) for name, value in zip(groups, values, strict=True)},
        requests=requests,
        cut=at["cut"],
        failed=at["failed"],
        input_tokens=at["input_tokens"],
        cached_tokens=at["cached_tokens"],
        output_tokens=at["output_tokens"],
        engine_seconds=at["engine_ns"] / 10**9,
        cost_usd=dollars(at["nanodollars"]),
        mean_seconds=at["milliseconds"] / requests / 1000 if requests else None,
        mean_first_token_seconds=at["first_token_ms"] / first_tokens / 1000 if first_tokens else None,
    )


def dollars(nanodollars: int) -> str:
    """Nanodollars as US dollars, exactly."""
    whole, rest = divmod(nanodollars, 10**9)
    return f"{whole}.{rest:09d}"


def _told(name: str, value: Any) -> str:
    if name in ("day", "hour"):
        form = "%Y-%m-%d" if name == "day" else "%Y-%m-%dT%H:%MZ"
        return datetime.fromtimestamp(int(value), UTC).strftime(form)
    return str(value)


def whole_hours(start: float, end: float) -> tuple[int, int]:
    """The full hours that a time is in."""
    return int(start // HOUR_S) * HOUR_S, int(-(-end // HOUR_S)) * HOUR_S
