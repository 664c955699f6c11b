"""`/v1/admin/pools`: how the replicas of every model are, and the queues in front of their engines."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import Struct

from cluster.interface import Observed
from cluster.messages import EngineStatus
from serve_apps.api.admin.access import administrator
from serve_apps.api.common import json_response
from serve_apps.gateway.deps import Gateway


class PoolState(Struct, frozen=True):
    """One model that runs on this cluster."""

    model: str
    replicas: list[EngineStatus]
    """Those that answered within two seconds. Of other models there are none to ask."""


class PoolsReport(Struct, frozen=True):
    """Every model."""

    data: list[PoolState]
    object: Literal["list"] = "list"


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["admin"])

    @routes.get("/v1/admin/pools")
    async def show_pools(request: HTTPRequest) -> Response:
        admin = await administrator(gateway, request)
        if admin.caller.role != "admin":  # it tells of every tenant
            await admin.refuse("Only the role 'admin' may see the pools.", "pools.read", "pools")
        pools = {name: pool for name, pool in gateway.pools.items() if isinstance(pool, Observed)}
        statuses = await asyncio.gather(*(pool.statuses() for pool in pools.values()))
        report = [PoolState(name, told) for name, told in zip(pools, statuses, strict=True)]
        return json_response(PoolsReport(report))

    return routes
