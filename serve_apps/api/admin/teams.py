"""`/v1/admin/teams`: parts of an organisation, and what they may spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Struct, UnsetType

from runtime.store.naming import check_name
from serve_apps.api.admin.access import Administrator, administrator, becoming, unknown
from serve_apps.api.admin.limits import (
    AllowanceChange,
    LimitsObject,
    changed_allowance,
    limits_by_model,
    limits_object,
)
from serve_apps.api.admin.organisations import Id, Title
from serve_apps.api.admin.pages import PAGE_PARAMETERS, page_size
from serve_apps.api.common import json_response
from serve_apps.api.parameters import asked_of
from serve_apps.gateway.administration import refusal
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.directory import AlreadyThere, NotThere, Team, TooManyTeams
from serve_apps.gateway.errors import Conflict
from serve_apps.gateway.limits import UNLIMITED
from serve_apps.translators.decoding import BodyDecoder

ORGANISATION: Final[Mapping[str, Any]] = {"type": "string", "description": "Default: that of the key."}
TEAM_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {"organisation": ORGANISATION}
TEAMS_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "organisation": ORGANISATION,
    **PAGE_PARAMETERS,
}


class TeamObject(Struct, frozen=True):
    """A part of an organisation. Its id is unique there."""

    id: str
    organisation: str
    name: str
    created: float
    """Unix seconds."""
    suspended: bool
    """Whether all its callers are refused for now."""
    limits: LimitsObject
    limits_by_model: dict[str, LimitsObject]
    object: Literal["team"] = "team"


class TeamList(Struct, frozen=True):
    """Some teams, by id."""

    data: list[TeamObject]
    has_more: bool
    last_id: str | None
    object: Literal["list"] = "list"


class TeamBody(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/admin/teams`."""

    id: Id
    organisation: str | None = None
    """Default: that of the key."""
    name: Title | None = None
    """For people. Default: the id."""


class TeamChange(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`PATCH /v1/admin/teams/{team}`. What is left out stays as it is."""

    name: Title | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET


class TeamDeleted(Struct, frozen=True):
    """From now on its keys are refused. Its id is not given again."""

    id: str
    organisation: str
    deleted: Literal[True] = True
    object: Literal["team.deleted"] = "team.deleted"


_decode_body = BodyDecoder(TeamBody).decode
_decode_change = BodyDecoder(TeamChange).decode


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/teams")
    async def list_teams(request: HTTPRequest) -> Response:
        return json_response(await _page(await administrator(gateway, request), request))

    @routes.post("/v1/admin/teams")
    async def create_team(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        body = _decode_body(await admin.body())
        tenant, team = admin.organisation(body.organisation), check_name("team", body.id)
        wanted = Team(tenant, team, body.name or team, gateway.clock(), changed_allowance(UNLIMITED, body))
        return json_response(team_object(await _create(admin, wanted)), 201)

    @routes.get("/v1/admin/teams/{team}")
    async def get_team(team: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_team(admin, asked_of(request, TEAM_PARAMETERS).get("organisation"), team)
        await admin.may("read", found, "team.read")
        return json_response(team_object(found))

    @routes.patch("/v1/admin/teams/{team}")
    async def change_team(team: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        tenant = asked_of(request, TEAM_PARAMETERS).get("organisation")
        body = _decode_change(await admin.body())
        found = await find_team(admin, tenant, team)
        await admin.may("change", found, "team.change")
        names = ("name", "suspended")
        given = {name: getattr(body, name) for name in names if getattr(body, name) is not UNSET}
        allowance = changed_allowance(found.allowance, body)
        changed = msgspec.structs.replace(found, allowance=allowance, **given)
        return json_response(team_object(await set_team(admin, found, changed)))

    @routes.delete("/v1/admin/teams/{team}")
    async def delete_team(team: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_team(admin, asked_of(request, TEAM_PARAMETERS).get("organisation"), team)
        await admin.may("delete", found, "team.delete")
        async with gateway.audit.changing(admin.change_of("team.delete", found, None)):
            try:
                await gateway.directory.delete_team(found.tenant, found.team)
            except NotThere:
                raise unknown("team", team) from None
        return json_response(TeamDeleted(found.team, found.tenant))

    return routes


async def find_team(admin: Administrator, organisation: str | None, team: str) -> Team:
    """Raises `NotFound`, `InvalidName`, `StoreUnavailable`."""
    found = await admin.gateway.directory.team(admin.organisation(organisation), team)
    if found is None:
        raise unknown("team", team)
    return found


async def _create(admin: Administrator, wanted: Team) -> Team:
    """Makes a team where the caller may. Raises `Forbidden`, `Conflict`, `StoreUnavailable`."""
    gateway, tenant, team = admin.gateway, wanted.tenant, wanted.team
    await admin.may("create", wanted, "team.create")
    if await gateway.directory.team(tenant, team) is not None:
        raise _taken(team)
    async with gateway.audit.changing(admin.change_of("team.create", None, wanted)):
        try:
            return await gateway.directory.create_team(tenant, team, wanted.name, allowance=wanted.allowance)
        except AlreadyThere:
            raise _taken(team) from None
        except TooManyTeams as error:
            raise Conflict(str(error), code="too_many_teams") from None


async def set_team(admin: Administrator, found: Team, changed: Team) -> Team:
    """Makes a change that the caller may make. Raises `Conflict`, `NotFound`, `StoreUnavailable`."""
    if changed == found:
        return found
    async with admin.gateway.audit.changing(admin.change_of("team.change", found, changed)):
        try:
            _, after = await admin.gateway.directory.change_team(
                found.tenant, found.team, becoming(found, changed)
            )
        except NotThere:
            raise unknown("team", found.team) from None
    return after


async def _page(admin: Administrator, request: HTTPRequest) -> TeamList:
    asked = asked_of(request, TEAMS_PARAMETERS)
    tenant, after = admin.organisation(asked.get("organisation")), asked.get("after", "")
    readable = [
        team_object(team)
        for team in await admin.gateway.directory.teams(tenant)
        if team.team > after and refusal(admin.caller, "read", team) is None
    ]
    limit = page_size(asked)
    last = readable[:limit][-1].id if readable else None
    return TeamList(readable[:limit], len(readable) > limit, last)


def team_object(team: Team) -> TeamObject:
    return TeamObject(
        team.team,
        team.tenant,
        team.name,
        team.created,
        team.suspended,
        limits_object(team.allowance.limits),
        limits_by_model(team.allowance),
    )


def _taken(team: str) -> Conflict:
    return Conflict(f"There is a team {team!r} already, or was.", code="team_exists")
