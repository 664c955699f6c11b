"""`/v1/admin/keys`: who may call, for how long, and what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Meta, Struct, UnsetType

from runtime.store.naming import check_name
from serve_apps.api.admin.access import Administrator, administrator, name_of, unknown
from serve_apps.api.admin.limits import (
    MAX_MODELS,
    AllowanceChange,
    LimitsObject,
    ModelName,
    changed_allowance,
    limits_by_model,
    limits_object,
)
from serve_apps.api.admin.organisations import Title
from serve_apps.api.admin.pages import PAGE_PARAMETERS, page_size
from serve_apps.api.admin.teams import ORGANISATION
from serve_apps.api.common import json_response
from serve_apps.api.parameters import asked_of
from serve_apps.gateway.administration import exceeding, refusal
from serve_apps.gateway.callers import DEFAULT_TEAM, Role
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest, Conflict, GatewayError, NotFound
from serve_apps.gateway.keys import MAX_ENDPOINTS, MAX_OVERLAP_S, InvalidEndpoint, KeyRecord, NoSuchKey
from serve_apps.gateway.limits import UNLIMITED
from serve_apps.gateway.rights import wrong_endpoint
from serve_apps.translators.decoding import BodyDecoder

LIST_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "organisation": ORGANISATION,
    "team": {"type": "string", "description": "Only keys of this team."},
    **PAGE_PARAMETERS,
}
MAX_EXPIRES: Final = 253_402_300_799.0
"""The end of the year 9999."""

Models = Annotated[list[ModelName], Meta(max_length=MAX_MODELS)]
Endpoints = Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=MAX_ENDPOINTS)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_EXPIRES)]


class KeyObject(Struct, frozen=True, kw_only=True):
    """What is known of a key, its secret excepted."""

    id: str
    name: str
    organisation: str
    team: str
    role: Role
    state: Literal["active", "expired", "revoked"]
    created: float
    """Unix seconds, as all times here."""
    created_by: str | None
    """Whose key made it; null where it was made in the store itself."""
    expires: float | None
    last_used: float | None
    """To a minute or so."""
    old_secret_until: float | None
    """Until when the secret before the last rotation goes on."""
    models: list[str] | None
    """Models, `graph/NAME` and `index/NAME` that may be called. Null is all."""
    endpoints: list[str] | None
    """Paths that may be called, `*` for anything in one. Null is all that the role may."""
    functions: bool
    """Whether pipelines that come with calls may reach out of the graph."""
    limits: LimitsObject
    limits_by_model: dict[str, LimitsObject]
    object: Literal["key"] = "key"


class KeyWithSecret(KeyObject, frozen=True, kw_only=True):
    """A key that was just made, or made anew."""

    key: str
    """The key itself. It is shown this once: the store keeps a hash of it."""


class KeyList(Struct, frozen=True):
    """Some keys, the oldest first."""

    data: list[KeyObject]
    has_more: bool
    last_id: str | None
    object: Literal["list"] = "list"


class KeyBody(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/admin/keys`."""

    name: Title
    """What the key is for."""
    organisation: str | None = None
    """Default: that of the key that asks."""
    team: str | None = None
    """Default: `default`; for a member its own."""
    role: Role = "service"
    expires: Seconds | None = None
    models: Models | None = None
    endpoints: Endpoints | None = None
    functions: bool = False


class KeyChange(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`PATCH /v1/admin/keys/{key_id}`. What is left out stays as it is; null takes away."""

    name: Title | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires: Seconds | UnsetType | None = UNSET
    models: Models | UnsetType | None = UNSET
    endpoints: Endpoints | UnsetType | None = UNSET
    functions: bool | UnsetType = UNSET


class RotateBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/admin/keys/{key_id}/rotate`."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=MAX_OVERLAP_S)] = 0.0
    """How long the secret so far goes on beside the new one."""


_decode_body = BodyDecoder(KeyBody).decode
_decode_change = BodyDecoder(KeyChange).decode
_decode_rotate = BodyDecoder(RotateBody).decode
_CHANGED: Final = ("name", "role", "expires", "models", "endpoints", "functions")


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/keys")
    async def list_keys(request: HTTPRequest) -> Response:
        return json_response(await _page(await administrator(gateway, request), request))

    @routes.post("/v1/admin/keys")
    async def create_key(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        wanted = _wanted(admin, _decode_body(await admin.body()))
        await admin.may("create", wanted, "key.create")
        await _check_team(admin, wanted)
        async with gateway.audit.changing(admin.change_of("key.create", None, wanted)):
            token = await gateway.keys.issue(wanted)
        return json_response(_with_secret(wanted, token, gateway.clock()), 201)

    @routes.get("/v1/admin/keys/{key_id}")
    async def get_key(key_id: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_key(admin, key_id)
        await admin.may("read", found, "key.read")
        return json_response(key_object(found, gateway.clock()))

    @routes.patch("/v1/admin/keys/{key_id}")
    async def change_key(key_id: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        body = _decode_change(await admin.body())
        found = await find_key(admin, key_id)
        await admin.may("change", found, "key.change")
        _check_expires(gateway, body.expires)
        given = {name: getattr(body, name) for name in _CHANGED if getattr(body, name) is not UNSET}
        changed = msgspec.structs.replace(found, allowance=changed_allowance(found.allowance, body), **given)
        return json_response(key_object(await set_key(admin, found, changed), gateway.clock()))

    @routes.post("/v1/admin/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        body = _decode_rotate(await admin.body())
        token, record = await _rotate(admin, await find_key(admin, key_id), body.overlap_seconds)
        return json_response(_with_secret(record, token, gateway.clock()))

    @routes.post("/v1/admin/keys/{key_id}/revoke")
    async def revoke_key(key_id: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_key(admin, key_id)
        await admin.may("delete", found, "key.revoke")
        revoked = msgspec.structs.replace(found, revoked=True)
        if not found.revoked:
            async with gateway.audit.changing(admin.change_of("key.revoke", found, revoked)):
                if not await gateway.keys.revoke(key_id):
                    raise unknown("key", key_id)
        return json_response(key_object(revoked, gateway.clock()))

    return routes


async def find_key(admin: Administrator, key_id: str) -> KeyRecord:
    """A key of an organisation that the caller sees. Raises `NotFound`, `InvalidName`, `StoreUnavailable`."""
    found = await admin.gateway.keys.get(check_name("key id", key_id))
    if found is None:
        raise unknown("key", key_id)
    try:
        admin.organisation(found.tenant)
    except NotFound:
        raise unknown("key", key_id) from None
    # When it was last used changes beside everything else, and belongs to no change.
    return found


async def set_key(admin: Administrator, found: KeyRecord, changed: KeyRecord) -> KeyRecord:
    """Makes a change of a key that the caller may change.

    Raises `Forbidden` where the key would then exceed the caller, `BadRequest`, `Conflict`, `NotFound`,
    `StoreUnavailable`.
    """
    await _may_hold(admin, changed, "key.change")
    _check_endpoints(changed.endpoints)
    if changed == found:
        return found

    def change(current: KeyRecord) -> KeyRecord:
        if _settled(current) != _settled(found):
            raise Conflict(
                "Somebody else changed it in the same moment: look at it again.", code="changed_meanwhile"
            )
        return changed

    deed = admin.change_of("key.change", _settled(found), _settled(changed))
    async with admin.gateway.audit.changing(deed):
        try:
            _, after = await admin.gateway.keys.change(found.key_id, change)
        except NoSuchKey:
            raise unknown("key", found.key_id) from None
        except InvalidEndpoint as error:
            raise _wrong_endpoint(str(error)) from None
    return after


async def _rotate(admin: Administrator, found: KeyRecord, overlap_s: float) -> tuple[str, KeyRecord]:
    """Gives a key another secret where the caller may: its token, and the key as it is then.

    Raises `Forbidden`, `Conflict`, `StoreUnavailable`.
    """
    gateway = admin.gateway
    await admin.may("change", found, "key.rotate")
    await _may_hold(admin, found, "key.rotate")
    if found.revoked:
        raise _revoked(found.key_id)
    rotated = msgspec.structs.replace(found, old_secret_until=gateway.clock() + overlap_s)
    async with gateway.audit.changing(admin.change_of("key.rotate", found, rotated)):
        try:
            return await gateway.keys.rotate(found.key_id, overlap_s=overlap_s)
        except NoSuchKey:
            raise _revoked(found.key_id) from None


async def _may_hold(admin: Administrator, key: KeyRecord, action: str) -> None:
    """Nobody makes or gets hold of a key that may do more than it may itself. Raises `Forbidden`."""
    reason = exceeding(admin.caller, key)
    if reason is not None:
        await admin.refuse(reason, action, name_of(key))


def key_object(record: KeyRecord, now: float) -> KeyObject:
    return KeyObject(**_shown(record, now))


def _with_secret(record: KeyRecord, token: str, now: float) -> KeyWithSecret:
    return KeyWithSecret(**_shown(record, now), key=token)


def _shown(record: KeyRecord, now: float) -> dict[str, Any]:
    old = record.old_secret_until
    return {
        "id": record.key_id,
        "name": record.name,
        "organisation": record.tenant,
        "team": record.team,
        "role": record.role,
        "state": _state(record, now),
        "created": record.created,
        "created_by": record.created_by,
        "expires": record.expires,
        "last_used": record.last_used,
        "old_secret_until": old if old is not None and old > now else None,
        "models": record.models,
        "endpoints": record.endpoints,
        "functions": record.functions,
        "limits": limits_object(record.allowance.limits),
        "limits_by_model": limits_by_model(record.allowance),
    }


def _state(record: KeyRecord, now: float) -> Literal["active", "expired", "revoked"]:
    if record.revoked:
        return "revoked"
    return "expired" if record.expires is not None and now >= record.expires else "active"


def _settled(record: KeyRecord) -> KeyRecord:
    """Without what changes by itself."""
    return msgspec.structs.replace(record, last_used=None)


def _wanted(admin: Administrator, body: KeyBody) -> KeyRecord:
    """The key as it would be made. Raises `BadRequest`, `NotFound`, `InvalidName`."""
    gateway, _, caller = admin
    _check_endpoints(body.endpoints)
    _check_expires(gateway, body.expires)
    usual = caller.team if caller.role == "member" else DEFAULT_TEAM
    return KeyRecord(
        key_id=gateway.keys.new_id(),
        tenant=admin.organisation(body.organisation),
        name=body.name,
        created=gateway.clock(),
        expires=body.expires,
        team=check_name("team", usual if body.team is None else body.team),
        role=body.role,
        allowance=changed_allowance(UNLIMITED, body),
        models=body.models,
        endpoints=body.endpoints,
        functions=body.functions,
        created_by=caller.id,
    )


async def _check_team(admin: Administrator, wanted: KeyRecord) -> None:
    """A team that nobody made has no limits, so a key of one that is misspelt would have none."""
    if wanted.team == DEFAULT_TEAM:
        return
    if await admin.gateway.directory.team(wanted.tenant, wanted.team) is None:
        raise BadRequest(
            f"The organisation {wanted.tenant!r} has no team {wanted.team!r}: create it first.",
            param="team",
            code="team_not_found",
        )


async def _page(admin: Administrator, request: HTTPRequest) -> KeyList:
    asked = asked_of(request, LIST_PARAMETERS)
    tenant, limit = admin.organisation(asked.get("organisation")), page_size(asked)
    found: list[KeyRecord] = []
    async for record in admin.gateway.keys.list(tenant, after=asked.get("after")):
        wanted = asked.get("team") in (None, record.team)
        if wanted and refusal(admin.caller, "read", record) is None:
            found.append(record)
        if len(found) > limit:
            break
    page = [key_object(record, admin.gateway.clock()) for record in found[:limit]]
    return KeyList(page, len(found) > limit, page[-1].id if page else None)


def _check_expires(gateway: Gateway, expires: float | UnsetType | None) -> None:
    if isinstance(expires, float) and expires <= gateway.clock():
        raise BadRequest(
            "'expires' is past. It is in Unix seconds; to end a key now, revoke it.",
            param="expires",
            code="invalid_value",
        )


def _check_endpoints(endpoints: list[str] | None) -> None:
    wrong = next(filter(None, map(wrong_endpoint, endpoints or [])), None)
    if wrong is not None:
        raise _wrong_endpoint(wrong)


def _wrong_endpoint(reason: str) -> GatewayError:
    return BadRequest(f"endpoints: {reason}.", param="endpoints", code="invalid_value")


def _revoked(key_id: str) -> Conflict:
    return Conflict(f"The key {key_id[:100]!r} is revoked: create another.", code="key_revoked")
