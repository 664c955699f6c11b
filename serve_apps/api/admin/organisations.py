"""`/v1/admin/organisations`: tenants, and what they may spend."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Meta, Struct, UnsetType

from runtime.store.naming import check_name
from serve_apps.api.admin.access import Administrator, administrator, becoming, unknown
from serve_apps.api.admin.limits import (
    AllowanceChange,
    LimitsObject,
    changed_allowance,
    limits_by_model,
    limits_object,
)
from serve_apps.api.admin.pages import PAGE_PARAMETERS, page_size
from serve_apps.api.common import json_response
from serve_apps.api.parameters import asked_of
from serve_apps.gateway.administration import refusal, sees
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.directory import AlreadyThere, NotThere, Organisation
from serve_apps.gateway.errors import Conflict
from serve_apps.gateway.limits import UNLIMITED
from serve_apps.translators.decoding import BodyDecoder

Title = Annotated[str, Meta(min_length=1, max_length=200)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]


class OrganisationObject(Struct, frozen=True):
    """An organisation. Organisations never see each other's data."""

    id: str
    name: str
    created: float
    """Unix seconds."""
    suspended: bool
    """Whether all its callers are refused for now."""
    limits: LimitsObject
    limits_by_model: dict[str, LimitsObject]
    object: Literal["organisation"] = "organisation"


class OrganisationList(Struct, frozen=True):
    """Some organisations, by id."""

    data: list[OrganisationObject]
    has_more: bool
    last_id: str | None
    object: Literal["list"] = "list"


class OrganisationBody(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/admin/organisations`."""

    id: Id
    """It is in the names of all that it keeps, and cannot be changed."""
    name: Title | None = None
    """For people. Default: the id."""


class OrganisationChange(AllowanceChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`PATCH /v1/admin/organisations/{organisation}`. What is left out stays as it is."""

    name: Title | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET


class OrganisationDeleted(Struct, frozen=True):
    """From now on its keys are refused. Its id is not given again."""

    id: str
    deleted: Literal[True] = True
    object: Literal["organisation.deleted"] = "organisation.deleted"


_decode_body = BodyDecoder(OrganisationBody).decode
_decode_change = BodyDecoder(OrganisationChange).decode


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/organisations")
    async def list_organisations(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        asked = asked_of(request, PAGE_PARAMETERS)
        return json_response(await _page(admin, page_size(asked), asked.get("after")))

    @routes.post("/v1/admin/organisations")
    async def create_organisation(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        body = _decode_body(await admin.body())
        allowance = changed_allowance(UNLIMITED, body)
        tenant = check_name("organisation", body.id)
        wanted = Organisation(tenant, body.name or tenant, gateway.clock(), allowance)
        return json_response(organisation_object(await _create(admin, wanted)), 201)

    @routes.get("/v1/admin/organisations/{organisation}")
    async def get_organisation(organisation: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_organisation(admin, organisation)
        await admin.may("read", found, "organisation.read")
        return json_response(organisation_object(found))

    @routes.patch("/v1/admin/organisations/{organisation}")
    async def change_organisation(organisation: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        body = _decode_change(await admin.body())
        found = await find_organisation(admin, organisation)
        await admin.may("change", found, "organisation.change")
        given = {
            name: getattr(body, name) for name in ("name", "suspended") if getattr(body, name) is not UNSET
        }
        changed = msgspec.structs.replace(found, allowance=changed_allowance(found.allowance, body), **given)
        return json_response(organisation_object(await set_organisation(admin, found, changed)))

    @routes.delete("/v1/admin/organisations/{organisation}")
    async def delete_organisation(organisation: str, request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        found = await find_organisation(admin, organisation)
        await admin.may("delete", found, "organisation.delete")
        if found.tenant == admin.caller.tenant:
            raise Conflict(
                "This is the organisation of your own key: delete it with a key of another.",
                code="own_organisation",
            )
        async with gateway.audit.changing(admin.change_of("organisation.delete", found, None)):
            try:
                await gateway.directory.delete_organisation(found.tenant)
            except NotThere:
                raise unknown("organisation", organisation) from None
        return json_response(OrganisationDeleted(found.tenant))

    return routes


async def find_organisation(admin: Administrator, tenant: str) -> Organisation:
    """Raises `NotFound`, `InvalidName`, `StoreUnavailable`."""
    found = await admin.gateway.directory.organisation(admin.organisation(tenant))
    if found is None:
        raise unknown("organisation", tenant)
    return found


async def _create(admin: Administrator, wanted: Organisation) -> Organisation:
    """Makes an organisation where the caller may. Raises `Forbidden`, `Conflict`, `StoreUnavailable`."""
    gateway, tenant = admin.gateway, wanted.tenant
    await admin.may("create", wanted, "organisation.create")
    if await gateway.directory.organisation(tenant) is not None:
        raise _taken(tenant)
    async with gateway.audit.changing(admin.change_of("organisation.create", None, wanted)):
        try:
            return await gateway.directory.create_organisation(
                tenant, wanted.name, allowance=wanted.allowance
            )
        except AlreadyThere:
            raise _taken(tenant) from None


async def set_organisation(admin: Administrator, found: Organisation, changed: Organisation) -> Organisation:
    """Makes a change that the caller may make. Raises `Conflict`, `NotFound`, `StoreUnavailable`."""
    if changed == found:
        return found
    async with admin.gateway.audit.changing(admin.change_of("organisation.change", found, changed)):
        try:
            _, after = await admin.gateway.directory.change_organisation(
                found.tenant, becoming(found, changed)
            )
        except NotThere:
            raise unknown("organisation", found.tenant) from None
    return after


async def _page(admin: Administrator, limit: int, after: str | None) -> OrganisationList:
    found: list[Organisation] = []
    async for each in admin.gateway.directory.organisations(after):
        if sees(admin.caller, each.tenant) and refusal(admin.caller, "read", each) is None:
            found.append(each)
        if len(found) > limit:
            break
    page = found[:limit]
    last = page[-1].tenant if page else None
    return OrganisationList([organisation_object(each) for each in page], len(found) > limit, last)


def organisation_object(organisation: Organisation) -> OrganisationObject:
    allowance = organisation.allowance
    return OrganisationObject(
        organisation.tenant,
        organisation.name,
        organisation.created,
        organisation.suspended,
        limits_object(allowance.limits),
        limits_by_model(allowance),
    )


def _taken(tenant: str) -> Conflict:
    return Conflict(f"There is an organisation {tenant!r} already, or was.", code="organisation_exists")
