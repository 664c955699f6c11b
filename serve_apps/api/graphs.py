"""`POST /v1/graphs/{name}/runs`, as a raw ASGI endpoint, and what can be said of graphs.

A run answers as one JSON object, or as server-sent events: one for each event of the run, named by its
type, the last of them `run_finished` or `run_failed`. A run in a conversation tells `context_kept` before
`run_finished`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from graphs.versions import AT
from runtime.request import RunRequest
from runtime.runner import GraphInfo, validate_inputs
from serve_apps.api.common import caller_of, json_response
from serve_apps.api.launch import RunOptions, launch
from serve_apps.api.run_answers import Keeping
from serve_apps.gateway.conversation import open_conversation
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.rights import GRAPH_PREFIX, may_use
from serve_apps.gateway.routing import find_graph, known_graph
from serve_apps.translators.decoding import BodyDecoder, check_free_form
from serve_apps.translators.openai import ContextId


class RunBody(RunOptions, frozen=True, kw_only=True):
    """`POST /v1/graphs/{name}/runs`."""

    inputs: dict[str, Any]
    """By name, as the graph's `inputs` schema says."""
    context_id: ContextId | None = msgspec.field(default=None, name="contextId")
    """Continues the conversation kept under this id, of a graph that can be chatted with."""


_decode_body = BodyDecoder(RunBody).decode


async def run_graph(request: Request) -> None:
    gateway, exchange, caller = request
    body = _decode_body(await exchange.body(gateway.settings.max_body_bytes))
    check_free_form(body.inputs, "inputs")
    name, info = find_graph(request, exchange.path.split("/")[3], body.context_id or "")
    inputs = validate_inputs(info.inputs, body.inputs)
    conversation = await open_conversation(request, body.context_id)
    if conversation is not None and info.chat is None:
        raise BadRequest("This graph keeps no conversation: it has no chat binding.", param="contextId")
    run = RunRequest(
        run_id=exchange.id,
        graph=name,
        inputs=inputs,
        deadline=exchange.deadline,
        tenant=caller.tenant,
        history=conversation.history if conversation is not None and info.reads_history else [],
    )
    keeping = Keeping(conversation, info.chat) if conversation is not None and info.chat is not None else None
    await launch(request, run, info, body, keeping)


class GraphObject(Struct, frozen=True):
    """A graph as the API tells of it."""

    name: str
    version: str
    description: str
    model: str | None
    """Its name on /v1/chat/completions; null for a graph that cannot be chatted with."""
    inputs: dict[str, Any]
    """JSON Schema."""
    outputs: dict[str, Any]
    """JSON Schema."""
    models: list[str]
    token_bound: int
    """Most tokens that one run can use: what a run reserves."""
    plan_hash: str
    object: Literal["graph"] = "graph"


class GraphList(Struct, frozen=True):
    data: list[GraphObject]
    object: Literal["list"] = "list"


def describe(gateway: Gateway, info: GraphInfo) -> GraphObject:
    newest = gateway.graphs[info.name].version == info.version
    reference = info.name if newest else f"{info.name}{AT}{info.version}"
    return GraphObject(
        info.name,
        info.version,
        info.description,
        GRAPH_PREFIX + reference if info.chat is not None else None,
        info.inputs,
        info.outputs,
        info.models,
        info.token_bound,
        info.plan_hash,
    )


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["graphs"])

    @routes.get("/v1/graphs")
    async def list_graphs(request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        visible = {
            (info.name, info.version): info
            for info in gateway.graphs.values()
            if may_use(caller, GRAPH_PREFIX + info.name)
        }
        return json_response(GraphList([describe(gateway, info) for info in visible.values()]))

    @routes.get("/v1/graphs/{name}")
    async def get_graph(name: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        return json_response(describe(gateway, known_graph(gateway, caller, name)))

    return routes
