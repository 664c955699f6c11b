"""`GET /v1/models` and `/v1/models/{id}`: the models and graphs that a key may call."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from serve_apps.api import anthropic_models
from serve_apps.api.common import caller_of, exchange_of, json_response
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.gateway.routing import known_graph, known_pool, visible_models
from serve_apps.gateway.wording import ANTHROPIC

GRAPH_OWNER = "cluster-graph-hybrid"


class ModelObject(Struct, frozen=True, omit_defaults=True):
    """A model, or a graph under the name by which it is chatted with."""

    id: str
    created: int
    """Unix seconds."""
    owned_by: str
    object: Literal["model"]
    task: Literal["generate", "embed", "graph"]
    max_context: int | None = None
    """Tokens of prompt and output together."""
    parent: str | None = None
    """Of a LoRA adapter, the model that it was trained on."""


class ModelList(Struct, frozen=True):
    data: list[ModelObject]
    object: Literal["list"] = "list"


def describe(gateway: Gateway, model: str) -> ModelObject:
    if model.startswith(GRAPH_PREFIX):
        return ModelObject(model, 0, GRAPH_OWNER, "model", "graph")
    info = gateway.pools[model].info
    return ModelObject(
        model, info.created, info.owned_by, "model", info.task, info.max_context, info.base or None
    )


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models")
    async def list_models(request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        names = visible_models(gateway, caller)
        if exchange_of(request).wording is ANTHROPIC:
            return json_response(anthropic_models.page(gateway, names, request.query_params))
        return json_response(ModelList([describe(gateway, name) for name in names]))

    @routes.get("/v1/models/{model:path}")
    async def get_model(model: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        if model.startswith(GRAPH_PREFIX):
            known_graph(gateway, caller, model.removeprefix(GRAPH_PREFIX))
        else:
            known_pool(gateway, caller, model)
        if exchange_of(request).wording is ANTHROPIC:
            return json_response(anthropic_models.describe(gateway, model))
        return json_response(describe(gateway, model))

    return routes
