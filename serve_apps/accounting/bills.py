"""What is told of a call when it ends: its record, and a line of the log.

Implements `serve_apps.gateway.bill.Bill`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from serve_apps.accounting.model import CallEnd, CallRecord, Share, encode_record
from serve_apps.accounting.queries import dollars
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Spent
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.metering import Meter

STANDARD_OUTPUT: Final = 1
MAX_TAGS: Final = 8
MAX_TAG_CHARS: Final = 64
"""Of a name or a value."""
MAX_TAGS_BYTES: Final = 2 * MAX_TAGS * (MAX_TAG_CHARS + 2)

_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=([^=,\s\x00-\x1f\x7f]{1,64})")
_line = msgspec.json.Encoder().encode
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Facts(msgspec.Struct, frozen=True):
    """What is known of a call before it is made."""

    call_id: str
    request_id: str
    """As it was shown to the client."""
    caller: Caller
    endpoint: str
    model: str
    began: float
    """Unix seconds."""
    tags: Mapping[str, str] = {}


class CallBill:
    """Of one call, by its meter."""

    def __init__(self, facts: Facts, meter: Meter, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self._facts = facts
        self._meter = meter
        self._clock = clock

    def spent(self, tokens: int) -> Spent:
        """What so many tokens of the call come to."""
        return Spent(tokens, sum(share.nanodollars for share in self._shares(tokens)))

    def record(self, end: CallEnd, spent: Spent) -> bytes:
        """The encoded record, had the call ended now. One that has not `expired` is told to the log too."""
        record = self.told("failed" if end == "done" and self._meter.failed else end, spent)
        if end != "expired":
            os.write(STANDARD_OUTPUT, line_of(record, self._facts.request_id))
        return encode_record(record)

    def told(self, end: CallEnd, spent: Spent) -> CallRecord:
        facts, now = self._facts, self._clock()
        return CallRecord(
            call_id=facts.call_id,
            at=now,
            tenant=facts.caller.tenant,
            team=facts.caller.team,
            caller=facts.caller.id,
            endpoint=facts.endpoint,
            model=facts.model,
            end=end,
            seconds=max(0.0, now - facts.began),
            first_token_s=self._meter.first_token_s,
            tags=dict(facts.tags),
            shares=self._shares(spent.tokens),
        )

    def _shares(self, tokens: int) -> list[Share]:
        return self._meter.shares(tokens) if tokens else []


def line_of(record: CallRecord, request_id: str) -> bytes:
    """A line of JSON for the log: nothing of what was said. Written as it is, for a logger takes twenty times
    as long over it; and past `sys.stdout`, where Serve puts a logger that looks through the whole stack."""
    first, shares = record.first_token_s, record.shares
    told = {
        "event": "call",
        "level": "info",
        "timestamp": datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "call_id": record.call_id,
        "organisation": record.tenant,
        "team": record.team,
        "key": record.caller,
        "endpoint": record.endpoint,
        "model": record.model,
        "end": record.end,
        "seconds": round(record.seconds, 6),
        "first_token_seconds": None if first is None else round(first, 6),
        "input_tokens": sum(share.input_tokens for share in shares),
        "cached_tokens": sum(share.cached_tokens for share in shares),
        "output_tokens": sum(share.output_tokens for share in shares),
        "engine_seconds": sum(share.engine_ns for share in shares) / 10**9,
        "cost_usd": dollars(sum(share.nanodollars for share in shares)),
        "tags": record.tags,
    }
    return _line(told) + b"\n"


def merged(tags: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The tags and, as far as there is room, others."""
    return dict(
        [*tags.items(), *((name, value) for name, value in more.items() if name not in tags)][:MAX_TAGS]
    )


def tags_of(header: bytes) -> dict[str, str]:
    """The tags of an `x-tags` header, as `project=search, feature=titles`. Raises `BadRequest`."""
    if len(header) > MAX_TAGS_BYTES:
        raise _bad_tags()
    tags: dict[str, str] = {}
    for part in filter(None, map(str.strip, header.decode("latin-1").split(","))):
        found = _TAG.fullmatch(part)
        if found is None:
            raise _bad_tags()
        tags[found[1]] = found[2]
    if len(tags) > MAX_TAGS:
        raise _bad_tags()
    return tags


def tags_in(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags in the `metadata` of a body, which may hold other things too: what is too long for a tag, or
    one too many, is none."""
    fit = [
        (name, value)
        for name, value in metadata.items()
        if _NAME.fullmatch(name) and 0 < len(value) <= MAX_TAG_CHARS and value.isprintable()
    ]
    return dict(fit[:MAX_TAGS])


def endpoint_of(path: str) -> str:
    """The path of a route, its name left out: `/v1/graphs/*/runs`."""
    parts = path.split("/")
    if len(parts) == 5:
        parts[3] = "*"
    return "/".join(parts)


def _bad_tags() -> BadRequest:
    return BadRequest(
        f"'x-tags' holds at most {MAX_TAGS} tags as 'project=search, feature=titles': names of "
        f"letters, digits, '.', '_' and '-', values without ',' and spaces, each of at most {MAX_TAG_CHARS} "
        "characters.",
        param="x-tags",
    )
