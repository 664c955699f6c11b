"""`GET /healthz`: this process lives. `GET /readyz`: everything behind it can answer."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from msgspec import Struct

from serve_apps.api.common import json_response
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.routing import STARTING_RETRY_AFTER_S


class Health(Struct, frozen=True):
    status: Literal["ok"] = "ok"


class ReadinessReport(Struct, frozen=True):
    status: Literal["ready", "starting"]
    parts: dict[str, Literal["ready", "starting"]]
    """Every model, and the graph runner."""


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Response:
        return json_response(Health())

    @routes.get("/readyz")
    async def readyz() -> Response:
        parts = {part: _word(ready) for part, ready in gateway.readiness.states().items()}
        if gateway.readiness.all_ready:
            return json_response(ReadinessReport("ready", parts))
        response = json_response(ReadinessReport("starting", parts), 503)
        response.headers["retry-after"] = str(int(STARTING_RETRY_AFTER_S))
        return response

    return routes


def _word(ready: bool) -> Literal["ready", "starting"]:
    return "ready" if ready else "starting"
