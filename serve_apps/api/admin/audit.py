"""`/v1/admin/audit`: who changed what in an organisation, and whether the log of it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from serve_apps.api.admin.access import Administrator, administrator, log_of
from serve_apps.api.admin.pages import PAGE_PARAMETERS, page_size
from serve_apps.api.common import json_response
from serve_apps.api.parameters import asked_of
from serve_apps.audit.model import PLATFORM, Entry, Outcome, parse_anchor
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import BodyDecoder

ORGANISATION: Final[Mapping[str, Any]] = {
    "type": "string",
    "description": f"Default: that of the key. `{PLATFORM}` is what belongs to none.",
}
LOG_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "organisation": ORGANISATION,
    **PAGE_PARAMETERS,
}
HEAD_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {"organisation": ORGANISATION}
VERIFY_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "organisation": ORGANISATION,
    "anchor": {"type": "string", "description": "What `/v1/admin/audit/head` said before."},
}


class AuditEntry(Struct, frozen=True):
    """Something that somebody did, or wanted to."""

    sequence: int
    at: float
    """Unix seconds."""
    actor: str
    """Id of the key, or `user-…` of a person."""
    actor_role: str
    actor_organisation: str | None
    """Null where it is another than that of the log, and the reader no administrator."""
    action: str
    object: str
    outcome: Outcome
    """`allowed`: the change followed, where no `failed` entry is `of` this one."""
    of: int | None
    request_id: str
    before: str | None
    """Digest of what it was, equal for equal values."""
    after: str | None
    changed: list[str]
    """Names of the fields that became others."""


class AuditPage(Struct, frozen=True):
    """Some entries, the newest first."""

    organisation: str
    data: list[AuditEntry]
    has_more: bool
    last_id: str | None
    """What to give as `after` to see older ones."""
    object: Literal["list"] = "list"


class AuditHead(Struct, frozen=True):
    """How far a log has come."""

    organisation: str
    anchor: str | None
    """To be kept where nobody reaches who reaches the store. Null of an empty log."""


class AuditVerdict(Struct, frozen=True):
    """What a look at every entry came to."""

    organisation: str
    sound: bool
    entries: int
    """That are as they were written, from the first on."""
    first_bad: int | None
    """Number of the first entry that is not as it was written, or is missing."""
    reason: str | None
    anchor: str | None
    """Of the last entry that is as it was written."""


class RestartBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/admin/audit/restart`."""

    organisation: str | None = None
    """Default: that of the key."""


_decode_restart = BodyDecoder(RestartBody).decode


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/audit")
    async def list_entries(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        asked = asked_of(request, LOG_PARAMETERS)
        log = log_of(admin, asked.get("organisation"))
        await admin.may_audit(log, "audit.read")
        after, limit = asked.get("after"), page_size(asked)
        before = None if after is None else _number(after)
        found = await gateway.audit.newest(log, limit + 1, before)
        page = [_public(entry, admin) for entry in found[:limit]]
        last = str(page[-1].sequence) if page else None
        return json_response(AuditPage(log, page, len(found) > limit, last))

    @routes.get("/v1/admin/audit/head")
    async def tell_head(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        log = log_of(admin, asked_of(request, HEAD_PARAMETERS).get("organisation"))
        await admin.may_audit(log, "audit.read")
        anchor = await gateway.audit.head(log)
        return json_response(AuditHead(log, None if anchor is None else str(anchor)))

    @routes.get("/v1/admin/audit/verify")
    async def verify(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        asked = asked_of(request, VERIFY_PARAMETERS)
        log = log_of(admin, asked.get("organisation"))
        await admin.may_audit(log, "audit.verify")
        return json_response(await _verdict(gateway, log, asked.get("anchor")))

    @routes.post("/v1/admin/audit/restart")
    async def restart(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        log = log_of(admin, _decode_restart(await admin.body()).organisation)
        if admin.caller.role != "admin":
            reason = "Only the role 'admin' may put an audit log aside."
            await admin.refuse(reason, "audit.restart", f"audit/{log}")
        await gateway.audit.restart(admin.deed("audit.restart", f"audit/{log}", tenant=log))
        anchor = await gateway.audit.head(log)
        return json_response(AuditHead(log, None if anchor is None else str(anchor)))

    return routes


def _number(after: str) -> int:
    if after.isascii() and after.isdigit() and len(after) <= 15:
        return int(after)
    raise BadRequest("'after' must be the number of an entry.", param="after", code="invalid_value")


async def _verdict(gateway: Gateway, log: str, given: str | None) -> AuditVerdict:
    anchors = [] if given is None else [parse_anchor(given)]
    if any(anchor.tenant != log for anchor in anchors):
        raise BadRequest(f"This anchor is of another log than {log!r}.", param="anchor", code="invalid_value")
    verdict = await gateway.audit.verify(log, anchors)
    return AuditVerdict(
        log,
        verdict.sound,
        verdict.entries,
        verdict.first_bad,
        verdict.reason or None,
        None if verdict.anchor is None else str(verdict.anchor),
    )


def _public(entry: Entry, admin: Administrator) -> AuditEntry:
    known = admin.caller.role == "admin" or entry.actor_tenant == admin.caller.tenant
    return AuditEntry(
        sequence=entry.sequence,
        at=entry.at,
        actor=entry.actor,
        actor_role=entry.actor_role,
        actor_organisation=entry.actor_tenant if known else None,
        action=entry.action,
        object=entry.object,
        outcome=entry.outcome,
        of=entry.of,
        request_id=entry.request_id,
        before=entry.before,
        after=entry.after,
        changed=entry.changed,
    )
