"""What the routes under FastAPI share: the exchange, the key, JSON answers, errors."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from starlette.exceptions import HTTPException

from cluster.errors import ClusterError
from runtime.context.errors import ContextError
from runtime.store.errors import StoreError
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
)
from serve_apps.gateway.failures import answer_to
from serve_apps.gateway.http import Exchange

EXCHANGE: Final = "gateway.exchange"
"""Where the ASGI scope holds the `Exchange`."""


def exchange_of(request: HTTPRequest) -> Exchange:
    exchange: Exchange = request.scope[EXCHANGE]
    return exchange


async def caller_of(gateway: Gateway, request: HTTPRequest) -> Caller:
    """Whoever sent the request, if it may call its path.

    Raises `Unauthorized`, `Forbidden`, `StoreUnavailable`.
    """
    return await gateway.callers.admit(exchange_of(request))


def json_response(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def install_error_handlers(api: FastAPI) -> None:
    for kind in (GatewayError, ClusterError, StoreError, ContextError):
        api.add_exception_handler(kind, _answer)
    api.add_exception_handler(HTTPException, _answer_http)
    # Starlette raises these again once they are answered, and the gateway's front logs them then.
    api.add_exception_handler(Exception, _answer_unforeseen)


async def _answer(request: HTTPRequest, error: Exception) -> Response:
    return _response(request, answer_to(error, exchange_of(request).id))


async def _answer_http(request: HTTPRequest, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == MethodNotAllowed.status:
        allowed = (error.headers or {}).get("Allow", "")
        return _response(request, MethodNotAllowed(f"Use {allowed}.", headers=[(b"allow", allowed.encode())]))
    return _response(request, NotFound(f"No such route: {request.url.path[:200]}"))


async def _answer_unforeseen(request: HTTPRequest, _: Exception) -> Response:
    request_id = exchange_of(request).id
    return _response(request, InternalError(f"The gateway failed to answer. Quote request id {request_id}."))


def _response(request: HTTPRequest, answer: GatewayError) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers()}
    return Response(exchange_of(request).error(answer), answer.status, headers, "application/json")
