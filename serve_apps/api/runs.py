"""`/v1/runs`: what became of the runs of the key's own tenant, and a way to end one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from cluster.messages import Failure
from runtime.records.model import RunRecord, RunSummary
from serve_apps.api.common import json_response, key_of
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest, NotFound
from serve_apps.gateway.failures import told
from serve_apps.gateway.keys import KeyRecord
from serve_apps.gateway.routing import GRAPH_PREFIX, may_use
from serve_apps.translators.decoding import suggestion

MAX_LISTED = 100
DEFAULT_LISTED = 20

LIST_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LISTED},
    "graph": {"type": "string", "description": "Only runs of this graph."},
    "after": {"type": "string", "description": "The `last_id` of the page before."},
}

R = TypeVar("R", bound=RunSummary)


class RunList(Struct, frozen=True):
    """Some runs, the newest first."""

    data: list[RunSummary]
    has_more: bool
    last_id: str | None
    """What to give as `after` to see older ones."""
    object: Literal["list"] = "list"


class CancelAnswer(Struct, frozen=True):
    """What comes of a call to cancel."""

    run_id: str
    status: Literal["cancelling", "succeeded", "failed", "cancelled"]
    """`cancelling`: it ends within a second. Any other: it had ended already."""


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["runs"])

    @routes.get("/v1/runs")
    async def list_runs(request: HTTPRequest) -> Response:
        key = await key_of(gateway, request)
        asked = request.query_params
        for name in asked:
            if name not in LIST_PARAMETERS:
                hint = suggestion(name, LIST_PARAMETERS)
                raise BadRequest(
                    f"There is no parameter {name[:100]!r}.{hint}", param=name[:100], code="unknown_field"
                )
        graph = asked.get("graph")
        page = await gateway.runs.newest(
            key.tenant,
            _limit(asked.get("limit")),
            gateway.clock(),
            wanted=lambda name: graph in (None, name) and may_use(key, GRAPH_PREFIX + name),
            after=asked.get("after"),
        )
        last = page.runs[-1].run_id if page.runs else None
        return json_response(RunList([_public(run) for run in page.runs], page.more, last))

    @routes.get("/v1/runs/{run_id}")
    async def get_run(run_id: str, request: HTTPRequest) -> Response:
        key = await key_of(gateway, request)
        return json_response(_public(await find_run(gateway, key, run_id)))

    @routes.post("/v1/runs/{run_id}/cancel")
    async def cancel_run(run_id: str, request: HTTPRequest) -> Response:
        key = await key_of(gateway, request)
        run = await find_run(gateway, key, run_id)
        if run.status != "running":
            return json_response(CancelAnswer(run_id, run.status))
        await gateway.runs.ask_to_cancel(key.tenant, run_id)
        return json_response(CancelAnswer(run_id, "cancelling"))

    return routes


async def find_run(gateway: Gateway, key: KeyRecord, run_id: str) -> RunRecord:
    """A run of the key's tenant, of a graph that the key may use. Raises `NotFound`, `StoreUnavailable`."""
    run = await gateway.runs.load(key.tenant, run_id, gateway.clock())
    if run is None or not may_use(key, GRAPH_PREFIX + run.graph):
        raise NotFound(f"There is no run {run_id[:100]!r}.", code="run_not_found")
    return run


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LISTED
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and 1 <= int(given) <= MAX_LISTED):
        raise BadRequest(f"'limit' must be 1 to {MAX_LISTED}.", param="limit", code="invalid_value")
    return int(given)


def _public(run: R) -> R:
    """The run as a stranger may read it: what went wrong inside is for the log."""
    if run.error is None:
        return run
    answer = told(Failure(run.error.kind, run.error.message), run.run_id)
    return msgspec.structs.replace(run, error=msgspec.structs.replace(run.error, message=answer.message))
