"""`GET` and `DELETE /v1/contexts/{id}`: the conversations that the key's own tenant keeps."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from serve_apps.api.common import caller_of, json_response
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import NotFound


class ContextDeleted(Struct, frozen=True):
    id: str
    deleted: bool
    """False when there was none."""
    object: Literal["context.deleted"] = "context.deleted"


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["contexts"])

    @routes.get("/v1/contexts/{context_id}")
    async def get_context(context_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        context = await gateway.contexts.load(caller.tenant, context_id)
        if context.version == 0:
            raise NotFound(f"There is no context {context_id!r}.", code="context_not_found")
        return json_response(context)

    @routes.delete("/v1/contexts/{context_id}")
    async def delete_context(context_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        return json_response(
            ContextDeleted(context_id, await gateway.contexts.delete(caller.tenant, context_id))
        )

    return routes
