"""`/openapi.json`: of all routes, and with a key also of its tasks, each with its own inputs and outputs.

Anybody may read what routes there are. Which tasks there are is told as `GET /ai` tells it: to keys,
and to each only those that it may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi import Request as HTTPRequest

from runtime.runner import GraphInfo
from serve_apps.api.common import exchange_of, json_response
from serve_apps.api.documentation import document_of
from serve_apps.api.tasks import visible_tasks
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.rights import may_call

ANY_TASK: Final = "/ai/{task}"

Document = Mapping[str, Any]


def router(gateway: Gateway, api: FastAPI) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    kept: dict[str, Any] = {}

    @routes.get("/openapi.json")
    async def document(request: HTTPRequest) -> Response:
        if not kept:
            kept.update(document_of(api))
        headers = exchange_of(request).headers
        if b"authorization" not in headers and b"x-api-key" not in headers:
            return json_response(kept)
        caller = await gateway.callers.authenticate(headers)
        return json_response(with_tasks(kept, _tasks(gateway, caller)))

    return routes


def _tasks(gateway: Gateway, caller: Caller) -> dict[str, GraphInfo]:
    """Those that the caller may use, by the path that it posts to."""
    paths = {f"/ai/{task}": gateway.graphs[graph] for task, graph in visible_tasks(gateway, caller).items()}
    return {path: info for path, info in paths.items() if caller.endpoints is None or may_call(caller, path)}


def with_tasks(document: Document, tasks: Mapping[str, GraphInfo]) -> Document:
    """The document with a path for each task, by path, in place of the one for any. Unchanged where there is
    none."""
    if not tasks:
        return document
    paths: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        if path != ANY_TASK:
            paths[path] = operations
            continue
        for one, info in tasks.items():
            paths[one] = {"post": _typed(operations["post"], info)}
    return {**document, "paths": paths}


def _typed(operation: Mapping[str, Any], info: GraphInfo) -> dict[str, Any]:
    success = operation["responses"]["200"]
    answer = success["content"]["application/json"]["schema"]
    outputs = {"type": "object", "properties": {"outputs": info.outputs}}
    content = {**success["content"], "application/json": {"schema": {"allOf": [answer, outputs]}}}
    return {
        **{field: value for field, value in operation.items() if field != "parameters"},
        "summary": info.description or operation["summary"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": info.inputs}}},
        "responses": {**operation["responses"], "200": {**success, "content": content}},
    }
