"""`/v1/admin/quotas`: what is set for a key, a team or an organisation, and what is left of it now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from serve_apps.api.admin.access import Administered, Administrator, administrator
from serve_apps.api.admin.keys import find_key, set_key
from serve_apps.api.admin.limits import AllowanceChange, changed_allowance, dollars_of
from serve_apps.api.admin.organisations import find_organisation, set_organisation
from serve_apps.api.admin.teams import ORGANISATION, find_team, set_team
from serve_apps.api.common import json_response
from serve_apps.api.parameters import asked_of
from serve_apps.gateway.callers import Caller, LevelKind
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.directory import Organisation, Standing, Team
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.keys import KeyRecord
from serve_apps.gateway.limits import UNLIMITED
from serve_apps.gateway.refusals import LimitState
from serve_apps.translators.decoding import BodyDecoder

QUOTA_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "key": {"type": "string", "description": "Id of a key. Default: the key that asks."},
    "team": {"type": "string", "description": "A team, in place of a key."},
    "organisation": {**ORGANISATION, "description": "That of the team; or, alone, an organisation."},
}

_NAMES: Final = {"money_per_month": "dollars_per_month"}
"""What a kind of limit is called here, where it is called otherwise."""


class LimitLeft(Struct, frozen=True):
    """One limit."""

    level: LevelKind
    """Whose it is."""
    id: str
    model: str | None
    """Null for one of everything together."""
    name: str
    """As `tokens_per_minute`."""
    limit: int | str
    """Dollars are a decimal text."""
    remaining: int | str
    reset_seconds: float | None
    """Until all of it is free again, if nothing more is taken; null where nobody knows."""


class QuotaReport(Struct, frozen=True):
    """All limits that count for a key, for a team or for an organisation."""

    organisation: str
    team: str | None
    key: str | None
    data: list[LimitLeft]
    object: Literal["quotas"] = "quotas"


class QuotaChange(AllowanceChange, frozen=True, forbid_unknown_fields=True):
    """`PATCH /v1/admin/quotas`. What is left out stays as it is."""


_decode_change = BodyDecoder(QuotaChange).decode


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/quotas")
    async def show_quotas(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        thing = await _meant(admin, asked_of(request, QUOTA_PARAMETERS))
        await admin.may("read", thing, "quota.read")
        return json_response(await _report(gateway, thing))

    @routes.patch("/v1/admin/quotas")
    async def set_quotas(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        asked = asked_of(request, QUOTA_PARAMETERS)
        body = _decode_change(await admin.body())
        thing = await _meant(admin, asked)
        await admin.may("change", thing, "quota.change")
        allowance = changed_allowance(thing.allowance, body)
        after = await _set(admin, thing, msgspec.structs.replace(thing, allowance=allowance))
        return json_response(await _report(gateway, after))

    return routes


async def _meant(admin: Administrator, asked: Mapping[str, str]) -> Administered:
    """Raises `BadRequest`, `NotFound`, `InvalidName`, `StoreUnavailable`."""
    key, team, organisation = (asked.get(name) for name in ("key", "team", "organisation"))
    if key is not None and (team is not None or organisation is not None):
        raise BadRequest(
            "Name a key, or a team, or an organisation: a key says whose it is.",
            param="key",
            code="invalid_value",
        )
    if team is not None:
        return await find_team(admin, organisation, team)
    if organisation is not None:
        return await find_organisation(admin, organisation)
    return await find_key(admin, admin.caller.id if key is None else key)


async def _set(admin: Administrator, found: Administered, changed: Administered) -> Administered:
    match found, changed:
        case Organisation(), Organisation():
            return await set_organisation(admin, found, changed)
        case Team(), Team():
            return await set_team(admin, found, changed)
        case KeyRecord(), KeyRecord():
            return await set_key(admin, found, changed)
    raise TypeError("a thing becomes another of its kind")


async def _report(gateway: Gateway, thing: Administered) -> QuotaReport:
    """As calls are held to it now: limits of all levels above count too."""
    held = await _held(gateway, thing)
    left = [_left(state) for state in await gateway.quotas.left(held)]
    team = None if isinstance(thing, Organisation) else held.team
    key = thing.key_id if isinstance(thing, KeyRecord) else None
    return QuotaReport(thing.tenant, team, key, left)


async def _held(gateway: Gateway, thing: Administered) -> Caller:
    """A caller who is held to just the limits that count for this."""
    if isinstance(thing, Organisation):
        return Caller(thing.tenant, "nobody", organisation_allowance=thing.allowance)
    above = await gateway.directory.organisation(thing.tenant)
    organisation = UNLIMITED if above is None else above.allowance
    if isinstance(thing, Team):
        return Caller(
            thing.tenant,
            "nobody",
            team=thing.team,
            organisation_allowance=organisation,
            team_allowance=thing.allowance,
        )
    team = await gateway.directory.team(thing.tenant, thing.team)
    return thing.caller(Standing(organisation, UNLIMITED if team is None else team.allowance))


def _left(state: LimitState) -> LimitLeft:
    money = state.kind == "money_per_month"
    return LimitLeft(
        level=state.level,
        id=state.level_id,
        model=state.model,
        name=_NAMES.get(state.kind, state.kind),
        limit=dollars_of(state.limit) if money else state.limit,
        remaining=dollars_of(state.remaining) if money else state.remaining,
        reset_seconds=state.reset_s,
    )
