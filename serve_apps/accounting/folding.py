"""Calls folded into the tables, each of them once.

    stream of a tenant ─► decode ─► those that are not in usage_calls ─► usage_calls, usage_hours, usage_days
                                    └───────────────── one transaction ─────────────────┘

A call is known by its id. Who folds may be killed at any point and may read an entry of the stream again, in
any order and together with others who fold: what is in `usage_calls` is in the sums, and is not added again.

A call that expired and was settled after all is told twice, the second time with what was told before. That
takes the place of exactly that record, if it is the one in `usage_calls`; the sums change by the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

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


class Entry(NamedTuple):
    """What the stream of a tenant has of one call; records are encoded."""

    record: bytes
    before: bytes = b""
    """The record that this one takes the place of; empty for none."""


class Folded(NamedTuple):
    """A record that is in the tables now and was not."""

    record: CallRecord
    before: CallRecord | None = None
    """The one that it took the place of."""


class _Part(NamedTuple):
    """A record to be added to the sums, or to be taken away from them."""

    record: CallRecord
    sign: int
    tags: str


_json = msgspec.json.Encoder(order="sorted").encode
_log = structlog.get_logger(__name__)


def fold(engine: Engine, tenant: str, entries: Sequence[Entry]) -> list[Folded]:
    """Adds records of a tenant that are not there yet, and puts later ones in the place of earlier ones. What
    has changed.

    Raises `SQLAlchemyError`; then nothing was added.
    """
    told: dict[str, Folded] = {}
    for new in _decoded(tenant, entries):
        if new.before is not None or new.record.call_id not in told:
            told[new.record.call_id] = new
    with engine.begin() as connection:
        known = set(_known(connection, tenant, list(told)))
        added = [Folded(new.record) for call_id, new in told.items() if call_id not in known]
        later = [
            new for call_id, new in told.items() if call_id in known and _replaces(connection, tenant, new)
        ]
        if added:
            connection.execute(insert(calls), [_row(tenant, new.record) for new in added])
        changes = _bounded(connection, tenant, [*added, *later])
        by_hour = _summed(tenant, changes)
        _add(connection, hours, by_hour)
        _add(connection, days, _by_day(by_hour))
    return [*added, *later]


def prune(engine: Engine, now: float, keep_s: float) -> None:
    """Forgets single calls that ended longer than `keep_s` ago, and the oldest sums by the hour."""
    with engine.begin() as connection:
        connection.execute(delete(calls).where(calls.c.at_ms < int((now - keep_s) * 1000)))
        connection.execute(delete(hours).where(hours.c.start < int(now - KEEP_HOURS_S)))


def tags_text(tags: dict[str, str]) -> str:
    """Tags as the tables have them: equal sets are equal texts."""
    return _json(tags).decode()


def _decoded(tenant: str, entries: Iterable[Entry]) -> Iterator[Folded]:
    for entry in entries:
        try:
            before = decode_record(entry.before) if entry.before else None
            yield Folded(decode_record(entry.record), before)
        except msgspec.MsgspecError as error:
            _log.error("record_unreadable", tenant=tenant, error=str(error))


def _known(connection: Connection, tenant: str, ids: list[str]) -> list[str]:
    if not ids:
        return []
    found = select(calls.c.call_id).where(calls.c.tenant == tenant, calls.c.call_id.in_(ids))
    return list(connection.scalars(found))


def _replaces(connection: Connection, tenant: str, new: Folded) -> bool:
    """Puts a record in the place of the one before it, where that is what is there: once, whoever else folds
    at the same time."""
    if new.before is None:
        return False
    same = [calls.c[name] == value for name, value in _row(tenant, new.before).items()]
    return connection.execute(update(calls).where(*same).values(_row(tenant, new.record))).rowcount == 1


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


def _bounded(connection: Connection, tenant: str, changes: Iterable[Folded]) -> Iterator[_Part]:
    """What is to be added and taken away, tags beyond `MAX_TAG_SETS` of an hour under one name. A set of tags
    that was once summed by itself stays so, and one that was not does not begin to."""
    seen: dict[int, set[str]] = {}
    for new in changes:
        for record, sign in ((new.before, -1), (new.record, 1)):
            if record is None:
                continue
            tags = tags_text(record.tags)
            if tags != NO_TAGS:
                hour = _start(record, HOUR_S)
                known = seen.get(hour)
                if known is None:
                    known = seen[hour] = _tag_sets(connection, tenant, hour)
                if tags not in known and len(known) >= MAX_TAG_SETS:
                    tags = OTHER_TAGS
                known.add(tags)
            yield _Part(record, sign, tags)


def _tag_sets(connection: Connection, tenant: str, hour: int) -> set[str]:
    of_hour = select(hours.c.tags).distinct().where(hours.c.tenant == tenant, hours.c.start == hour)
    return set(connection.scalars(of_hour.limit(MAX_TAG_SETS + 2)))  # all: NO_TAGS and OTHER_TAGS go beyond


def _summed(tenant: str, parts: Iterable[_Part]) -> Sums:
    """By the hour."""
    sums: Sums = {}
    for record, sign, tags in parts:
        graph = record.model.removeprefix(GRAPH) if record.model.startswith(GRAPH) else ""
        whose = (_start(record, HOUR_S), tenant, record.team, record.caller, graph)
        own = (*whose, "" if graph else record.model, "", tags)
        _sum(sums, own, _of_call(record), sign)
        for share in record.shares:
            _sum(sums, (*whose, share.model, share.node, tags), _of_share(share), sign)
    return sums


def _by_day(by_hour: Sums) -> Sums:
    sums: Sums = {}
    for (hour, *dimensions), counts in by_hour.items():
        _sum(sums, (hour // DAY_S * DAY_S, *dimensions), counts, 1)
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


def _sum(sums: Sums, of: tuple[Any, ...], amounts: dict[str, int], sign: int) -> None:
    counts = sums.setdefault(of, dict.fromkeys(COUNTS, 0))
    for name, amount in amounts.items():
        counts[name] += sign * amount


def _add(connection: Connection, table: Table, sums: Sums) -> None:
    for (start, *dimensions), counts in sorted(sums.items()):  # two that fold take their locks in one order
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
