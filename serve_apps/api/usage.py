"""`GET /v1/usage`: what was used and what it cost, by whatever somebody wants to know.

role      sees
admin     all organisations
owner     its organisation
member    its team
service   its own key
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from serve_apps.accounting.book import UsageUnavailable
from serve_apps.accounting.folding import DAY_S
from serve_apps.accounting.queries import (
    GROUPS,
    MAX_OFFSET,
    MAX_ROWS,
    TAG_GROUP,
    TooMuch,
    UsageQuery,
    UsageRow,
    whole_hours,
)
from serve_apps.api.common import caller_of, json_response
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest, Forbidden, Unavailable

USUAL_DAYS: Final = 30
MAX_GROUPS: Final = 6
MAX_VALUE_CHARS: Final = 256
MAX_YEARS: Final = 10

_TAG = re.compile(r"tag\.[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILTERS: Final = ("organisation", "team", "key", "graph", "model", "node")

USAGE_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "from": {
        "type": "string",
        "description": "The first time that counts, as 2026-01-31, 2026-01-31T12:00Z or Unix seconds; it is "
        "widened to a full hour. Default: 30 days back.",
    },
    "to": {
        "type": "string",
        "description": "The first time that counts no more. Default: the end of today, UTC.",
    },
    "group_by": {
        "type": "string",
        "description": f"Any of {', '.join(GROUPS)} and tag.NAME, with commas between them.",
    },
    **{name: {"type": "string", "description": f"Only of this {name}."} for name in _FILTERS},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": MAX_ROWS},
    "offset": {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0},
}


class UsageReport(Struct, frozen=True, kw_only=True):
    """What was used, in the order of the groups."""

    data: list[UsageRow]
    start: str
    """As far as it was widened to full hours."""
    end: str
    folded_until: str | None
    """Calls that ended before this are in it, later ones may be missing: seconds, where all is well."""
    has_more: bool
    next_offset: int | None
    """What to give as `offset` to see more."""
    object: Literal["list"] = "list"


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["usage"])

    @routes.get("/v1/usage")
    async def usage(request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        query = query_of(caller, request.query_params, gateway.clock())
        return json_response(await report(gateway, query))

    return routes


async def report(gateway: Gateway, query: UsageQuery) -> UsageReport:
    """Raises `BadRequest`, `Unavailable`."""
    if gateway.usage is None:
        raise Unavailable("No usage is kept here.", code="usage_unavailable")
    try:
        answer = await gateway.usage.ask(query)
    except TooMuch:
        raise BadRequest(
            "That are too many tags at once: ask for less time, or for fewer groups.", param="group_by"
        ) from None
    except UsageUnavailable:
        raise Unavailable("The usage cannot be read.", code="usage_unavailable", retry_after_s=5) from None
    until, more = answer.folded_until, answer.page.more
    return UsageReport(
        data=answer.page.rows,
        start=_moment(query.start),
        end=_moment(query.end),
        folded_until=None if until is None else _moment(until),
        has_more=more,
        next_offset=query.offset + query.limit if more else None,
    )


def query_of(caller: Caller, asked: Mapping[str, str], now: float) -> UsageQuery:
    """What the parameters ask for, as far as the caller may know it. Raises `BadRequest`, `Forbidden`."""
    for name in asked:
        if name not in USAGE_PARAMETERS and not _TAG.fullmatch(name):
            known = ", ".join(USAGE_PARAMETERS)
            raise BadRequest(
                f"There is no parameter {name[:100]!r}; there are {known} and tag.NAME.",
                param=name[:100],
                code="unknown_field",
            )
    tomorrow = (int(now) // DAY_S + 1) * DAY_S
    end = _time("to", asked.get("to"), tomorrow)
    start = _time("from", asked.get("from"), end - USUAL_DAYS * DAY_S)
    if not 0 < end - start <= MAX_YEARS * 366 * DAY_S:
        raise BadRequest(f"'from' must be before 'to', by at most {MAX_YEARS} years.", param="from")
    first, last = whole_hours(start, end)
    return UsageQuery(
        start=first,
        end=last,
        group_by=_groups(asked.get("group_by", "")),
        where=_allowed(caller, asked),
        limit=_number("limit", asked.get("limit"), 1, MAX_ROWS, MAX_ROWS),
        offset=_number("offset", asked.get("offset"), 0, MAX_OFFSET, 0),
    )


def seen_by(caller: Caller) -> dict[str, str]:
    """What a caller may see, as filters."""
    match caller.role:
        case "admin":
            return {}
        case "owner":
            return {"organisation": caller.tenant}
        case "member":
            return {"organisation": caller.tenant, "team": caller.team}
        case "service":
            return {"organisation": caller.tenant, "key": caller.id}


def _allowed(caller: Caller, asked: Mapping[str, str]) -> dict[str, str]:
    where = {name: value for name, value in asked.items() if name in _FILTERS or name.startswith(TAG_GROUP)}
    for name, value in where.items():
        if len(value) > MAX_VALUE_CHARS:
            raise BadRequest(f"{name!r} is longer than {MAX_VALUE_CHARS} characters.", param=name)
    for name, own in seen_by(caller).items():
        if where.get(name, own) != own:
            raise Forbidden(f"The role {caller.role!r} sees the usage of its own {name} only, {own!r}.")
        where[name] = own
    return where


def _groups(given: str) -> list[str]:
    groups = [name.strip() for name in given.split(",", MAX_GROUPS + 1) if name.strip()]
    for name in groups:
        if name not in GROUPS and not _TAG.fullmatch(name):
            raise BadRequest(
                f"There is no group {name[:100]!r}; there are {', '.join(GROUPS)} and tag.NAME.",
                param="group_by",
                code="invalid_value",
            )
    if len(groups) > MAX_GROUPS or len(set(groups)) < len(groups):
        raise BadRequest(f"'group_by' takes at most {MAX_GROUPS} groups, each once.", param="group_by")
    return groups


def _time(name: str, given: str | None, usual: float) -> float:
    """Unix seconds."""
    if given is None:
        return usual
    if given.isascii() and given.isdigit() and len(given) <= 11:
        return float(given)
    try:
        moment = datetime.fromisoformat(given[:40])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name!r} must be a time as 2026-01-31, 2026-01-31T12:00Z or Unix seconds.", param=name
        ) from None


def _number(name: str, given: str | None, least: int, most: int, usual: int) -> int:
    if given is None:
        return usual
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and least <= int(given) <= most):
        raise BadRequest(f"{name!r} must be {least} to {most}.", param=name, code="invalid_value")
    return int(given)


def _moment(seconds: float) -> str:
    whole = datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(seconds))
    return whole.strftime("%Y-%m-%dT%H:%M:%SZ")
