"""`POST /ai/{task}`: a graph under the name of what it is good for, asked in nothing but its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from runtime.request import RunRequest
from runtime.runner import validate_inputs
from serve_apps.api.common import caller_of, json_response
from serve_apps.api.launch import RunOptions, launch
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import NotFound
from serve_apps.gateway.rights import GRAPH_PREFIX, may_use
from serve_apps.gateway.routing import find_graph, known_graph
from serve_apps.translators.decoding import BodyDecoder, check_free_form, suggestion

_decode_inputs = BodyDecoder(dict[str, Any]).decode


class TaskObject(Struct, frozen=True):
    """What a task takes and answers."""

    task: str
    graph: str
    description: str
    inputs: dict[str, Any]
    """JSON Schema of the body."""
    outputs: dict[str, Any]
    """JSON Schema of the answer's `outputs`."""
    object: Literal["task"] = "task"


class TaskList(Struct, frozen=True):
    data: list[TaskObject]
    object: Literal["list"] = "list"


async def run_task(request: Request) -> None:
    gateway, exchange, caller = request
    inputs = _decode_inputs(await exchange.body(gateway.settings.max_body_bytes))
    check_free_form(inputs, "inputs")
    task = exchange.path.split("/")[2]
    graph = gateway.tasks.get(task)
    if graph is None:
        hint = suggestion(task, visible_tasks(gateway, caller))
        raise NotFound(f"There is no task {task[:100]!r}.{hint} GET /ai lists all.", code="task_not_found")
    graph, info = find_graph(request, graph)
    run = RunRequest(
        run_id=exchange.id,
        graph=graph,
        inputs=validate_inputs(info.inputs, inputs),
        deadline=exchange.deadline,
        tenant=caller.tenant,
    )
    await launch(request, run, info, RunOptions())


def visible_tasks(gateway: Gateway, caller: Caller) -> Mapping[str, str]:
    """The tasks that the key may use, and their graphs."""
    return {task: graph for task, graph in gateway.tasks.items() if may_use(caller, GRAPH_PREFIX + graph)}


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["tasks"])

    @routes.get("/ai")
    async def list_tasks(request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        described = []
        for task, graph in visible_tasks(gateway, caller).items():
            info = known_graph(gateway, caller, graph)
            described.append(TaskObject(task, graph, info.description, info.inputs, info.outputs))
        return json_response(TaskList(described))

    return routes
