"""Calls folded into the tables, each of them once.

    stream of a tenant ─► decode ─► those that are not in usage_calls ─► usage_calls, usage_hours, usage_days
                                    └───────────────── one transaction ─────────────────┘

A call is known by its id. Who folds may be killed at any point and may read an entry of the stream again, in
any order and together with others who fold: what is in `usage_calls` is in the sums, and is not added again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from serve_apps.accounting.model import CallRecord, Share, decode_record
from serve_apps.accounting.schema import COUNTS, DIMENSIONS, calls, days, hours

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
KEEP_HOURS_S: Final = 92 * DAY_S
"""How long sums by the hour are kept; those by the day are kept for good."""
MAX_TAG_SETS: Final = 1000
"""Different sets of tags of one organisation in one hour; more of them are summed as `OTHER_TAGS`."""
OTHER_TAGS: Final = '{"*":"other"}'
NO_TAGS: Final = "{}"
GRAPH: Final = "graph/"

Sums = dict[tuple[Any, ...], dict[str, int]]
"""By the start of the period and the dimensions."""

_json = msgspec.json.Encoder(order="sorted").encode
_log = structlog.get_logger(__name__)


def fold(engine: Engine, tenant: str, entries: Sequence[bytes]) -> list[CallRecord]:
    """Adds encoded records of a tenant that are not there yet. Those that it has added.

    Raises `SQLAlchemyError`; then nothing was added.
    """
    records = {record.call_id: record for record in _decoded(tenant, entries)}
    with engine.begin() as connection:
        for known in _known(connection, tenant, list(records)):
            del records[known]
        if records:
            connection.execute(insert(calls), [_row(tenant, record) for record in records.values()])
            _add(connection, hours, _summed(tenant, _bounded(connection, tenant, records.values()), HOUR_S))
            _add(connection, days, _summed(tenant, _bounded(connection, tenant, records.values()), DAY_S))
    return list(records.values())


def prune(engine: Engine, now: float, keep_s: float) -> None:
    """Forgets single calls that ended longer than `keep_s` ago, and the oldest sums by the hour."""
    with engine.begin() as connection:
        connection.execute(delete(calls).where(calls.c.at_ms < int((now - keep_s) * 1000)))
        connection.execute(delete(hours).where(hours.c.start < int(now - KEEP_HOURS_S)))


def tags_text(tags: dict[str, str]) -> str:
    """Tags as the tables have them: equal sets are equal texts."""
    return _json(tags).decode()


def _decoded(tenant: str, entries: Iterable[bytes]) -> Iterator[CallRecord]:
    for entry in entries:
        try:
            yield decode_record(entry)
        except msgspec.MsgspecError as error:
            _log.error("record_unreadable", tenant=tenant, error=str(error))


def _known(connection: Connection, tenant: str, ids: list[str]) -> list[str]:
    if not ids:
        return []
    found = select(calls.c.call_id).where(calls.c.tenant == tenant, calls.c.call_id.in_(ids))
    return list(connection.scalars(found))


def _row(tenant: str, record: CallRecord) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "call_id": record.call_id,
        "at_ms": int(record.at * 1000),
        "team": record.team,
        "caller": record.caller,
        "endpoint": record.endpoint,
        "model": record.model,
        "ended": record.end,
        "milliseconds": _ms(record.seconds),
        "first_token_ms": None if record.first_token_s is None else _ms(record.first_token_s),
        "tags": tags_text(record.tags),
        "shares": _json(record.shares).decode(),
    }


def _bounded(
    connection: Connection, tenant: str, records: Iterable[CallRecord]
) -> Iterator[tuple[CallRecord, str]]:
    """The records with their tags, those beyond `MAX_TAG_SETS` of an hour under one name."""
    seen: dict[int, set[str]] = {}
    for record in records:
        tags = tags_text(record.tags)
        if tags != NO_TAGS:
            hour = _start(record, HOUR_S)
            known = seen.get(hour)
            if known is None:
                known = seen[hour] = _tag_sets(connection, tenant, hour)
            if tags not in known and len(known) >= MAX_TAG_SETS:
                tags = OTHER_TAGS
            known.add(tags)
        yield record, tags


def _tag_sets(connection: Connection, tenant: str, hour: int) -> set[str]:
    of_hour = select(hours.c.tags).distinct().where(hours.c.tenant == tenant, hours.c.start == hour)
    return set(connection.scalars(of_hour.limit(MAX_TAG_SETS + 1)))


def _summed(tenant: str, records: Iterable[tuple[CallRecord, str]], period_s: int) -> Sums:
    sums: Sums = {}
    for record, tags in records:
        graph = record.model.removeprefix(GRAPH) if record.model.startswith(GRAPH) else ""
        whose = (_start(record, period_s), tenant, record.team, record.caller, graph)
        own = (*whose, "" if graph else record.model, "", tags)
        _sum(sums, own, _of_call(record))
        for share in record.shares:
            _sum(sums, (*whose, share.model, share.node, tags), _of_share(share))
    return sums


def _of_call(record: CallRecord) -> dict[str, int]:
    first = record.first_token_s
    return {
        "requests": 1,
        "cut": int(record.end == "cut"),
        "failed": int(record.end not in ("done", "cut")),
        "milliseconds": _ms(record.seconds),
        "first_token_ms": 0 if first is None else _ms(first),
        "first_tokens": int(first is not None),
    }


def _of_share(share: Share) -> dict[str, int]:
    return {
        "input_tokens": share.input_tokens,
        "cached_tokens": share.cached_tokens,
        "output_tokens": share.output_tokens,
        "engine_ns": share.engine_ns,
        "nanodollars": share.nanodollars,
    }


def _sum(sums: Sums, of: tuple[Any, ...], amounts: dict[str, int]) -> None:
    counts = sums.setdefault(of, dict.fromkeys(COUNTS, 0))
    for name, amount in amounts.items():
        counts[name] += amount


def _add(connection: Connection, table: Table, sums: Sums) -> None:
    for (start, *dimensions), counts in sums.items():
        key = _digest(start, dimensions)
        more = {name: table.c[name] + amount for name, amount in counts.items()}
        if connection.execute(update(table).where(table.c.id == key).values(more)).rowcount == 0:
            named = dict(zip(DIMENSIONS, dimensions, strict=True))
            connection.execute(insert(table).values(id=key, start=start, **named, **counts))


def _digest(start: int, dimensions: list[str]) -> str:
    return blake2b(_json([start, *dimensions]), digest_size=16).hexdigest()


def _start(record: CallRecord, period_s: int) -> int:
    return int(record.at) // period_s * period_s


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
