"""Records of calls for tests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from serve_apps.accounting.folding import Entry
from serve_apps.accounting.model import CallRecord, Share, encode_record
from serve_apps.accounting.queries import UsageQuery, UsageRow, ask

NOON = 1_800_014_400.0
"""Unix seconds: a noon, UTC."""
DAY = range(int(NOON) - 12 * 3600, int(NOON) + 12 * 3600)


def record(call_id: str, **fields: Any) -> CallRecord:
    """A call of one model with ten tokens, six of them of the prompt."""
    defaults: dict[str, Any] = {
        "at": NOON,
        "tenant": "acme",
        "team": "default",
        "caller": "key-1",
        "endpoint": "/v1/chat/completions",
        "model": "small",
        "end": "done",
        "seconds": 0.5,
        "shares": [Share("small", input_tokens=6, output_tokens=4, engine_ns=10**9, nanodollars=100)],
    }
    return CallRecord(call_id=call_id, **(defaults | fields))


def encoded(*records: CallRecord) -> list[Entry]:
    return [Entry(encode_record(each)) for each in records]


def late(record: CallRecord, before: CallRecord) -> Entry:
    """Of a call that was settled after it had expired."""
    return Entry(encode_record(record), encode_record(before))


def asked(engine: Engine, *groups: str, **fields: Any) -> list[UsageRow]:
    query = {"start": DAY.start, "end": DAY.stop} | fields
    return ask(engine, UsageQuery(group_by=list(groups), **query)).rows


def tokens(engine: Engine) -> int:
    """Of all calls of the day."""
    rows = asked(engine)
    return sum(row.input_tokens + row.output_tokens for row in rows)
