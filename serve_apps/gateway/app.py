"""The gateway as one ASGI application.

    request ─► Front ─┬─ a hot route (raw ASGI, msgspec):  authenticate ─► answered before? ─► endpoint
                      └─ all else: the FastAPI application, which also documents the hot routes

The hot routes are found in a dictionary before any router or middleware runs. Whatever goes wrong on either
way ends in `_refuse`, so that every error has the shape of its dialect, and the request's id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

import structlog
from fastapi import FastAPI

from serve_apps.api import (
    anthropic,
    approvals,
    contexts,
    documentation,
    graphs,
    health,
    inline,
    models,
    openai,
    responses,
    run_actions,
    runs,
    tasks,
    tokenize,
    usage,
)
from serve_apps.api.admin.routes import ADMIN
from serve_apps.api.common import EXCHANGE, install_error_handlers
from serve_apps.gateway.deps import Gateway, GatewayDeps, Request
from serve_apps.gateway.errors import ClientGone, GatewayError, MethodNotAllowed
from serve_apps.gateway.failures import answer_to
from serve_apps.gateway.http import (
    JSON_TYPE,
    Exchange,
    Receive,
    Scope,
    Send,
    timeout_of,
)
from serve_apps.gateway.recording import answered_before
from serve_apps.gateway.stopping import OpenRequests
from serve_apps.gateway.wording import ANTHROPIC, OPENAI, Wording
from serve_apps.reference import document, page

Endpoint = Callable[[Request], Awaitable[None]]

DRAIN_S = 10.0
"""How long a stopping gateway waits for settlements."""
REFUSAL_S = 2.0
"""How long an error may take to be sent to a client that does not read."""


class Route(NamedTuple):
    """A hot route."""

    method: Literal["GET", "POST"]
    endpoint: Endpoint
    alone: bool = True
    """Whether nothing else is at its path: else FastAPI has the other methods."""
    wording: Wording = OPENAI
    """Of its errors."""


HOT_ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route("POST", openai.chat_completions),
    "/v1/completions": Route("POST", openai.completions),
    "/v1/embeddings": Route("POST", openai.embeddings),
    "/v1/responses": Route("POST", responses.create_response),
    "/v1/messages": Route("POST", anthropic.messages, wording=ANTHROPIC),
    "/v1/messages/count_tokens": Route("POST", anthropic.count_tokens, wording=ANTHROPIC),
    "/v1/tokenize": Route("POST", tokenize.tokenize),
    "/v1/detokenize": Route("POST", tokenize.detokenize),
    "/ai/*": Route("POST", tasks.run_task),
    "/v1/graphs/*/runs": Route("POST", graphs.run_graph),
    "/v1/runs": Route("POST", inline.run_inline, alone=False),
    "/v1/runs/*/events": Route("GET", run_actions.run_events),
    "/v1/runs/*/resume": Route("POST", run_actions.resume_run),
    "/v1/runs/*/fork": Route("POST", run_actions.fork_run),
}
"""By path, `*` where a name stands."""

_log = structlog.get_logger(__name__)


def build_app(deps: GatewayDeps) -> Front:
    """The gateway over its parts. Its lifespan watches what is ready, and settles what is left at the end."""
    gateway = Gateway(deps)
    return Front(gateway, _api(gateway))


class Front:
    """The outermost callable."""

    def __init__(self, gateway: Gateway, api: FastAPI) -> None:
        self._gateway = gateway
        self.api = api
        """All else."""
        self._open = OpenRequests()

    async def stop(self, grace_s: float) -> int:
        """As `OpenRequests.stop`."""
        return await self._open.stop(grace_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, says_id=self._gateway.says_ids)
        route = _find(scope["method"], exchange.path)
        exchange.speak(_wording_of(route, exchange))
        self._open.add(exchange)
        try:
            self._open.refuse_if_stopping()
            settings, now = self._gateway.settings, self._gateway.clock()
            # Whoever follows a run wants to see its end.
            follows = route is not None and route.method == "GET"
            usual = settings.max_timeout_s if follows else settings.default_timeout_s
            seconds = timeout_of(exchange.headers, usual, settings.max_timeout_s)
            async with exchange.bounded(seconds, now):
                if route is None:
                    scope[EXCHANGE] = exchange
                    await self.api(scope, receive, exchange.forward)
                elif scope["method"] != route.method:
                    raise MethodNotAllowed(
                        f"Use {route.method}.", headers=[(b"allow", route.method.encode())]
                    )
                else:
                    caller = await self._gateway.callers.admit(exchange)
                    request = Request(self._gateway, exchange, caller)
                    if route.method == "GET" or not await answered_before(request):
                        await route.endpoint(request)
        except ClientGone:
            _log.info("client_gone", request_id=exchange.id)
        except Exception as error:  # noqa: BLE001 - the last resort: `answer_to` logs what it does not know
            await _refuse(exchange, answer_to(error, exchange.id), self._gateway.clock())
        finally:
            self._open.remove(exchange)
            if exchange.recorder is not None:
                exchange.recorder.close()


def _find(method: str, path: str) -> Route | None:
    """The hot route of a path; None where FastAPI has one, or nobody."""
    route = HOT_ROUTES.get(path)
    if route is None:
        match path.split("/"):
            case ["", version, kind, _, action]:
                route = HOT_ROUTES.get(f"/{version}/{kind}/*/{action}")
            case ["", "ai", task] if task:
                route = HOT_ROUTES["/ai/*"]
            case _:
                pass
    return route if route is None or route.alone or route.method == method else None


def _wording_of(route: Route | None, exchange: Exchange) -> Wording:
    """Anthropic's SDKs say what they are, also where they ask for what both dialects have."""
    if route is not None:
        return route.wording
    return ANTHROPIC if b"anthropic-version" in exchange.headers else OPENAI


async def _refuse(exchange: Exchange, answer: GatewayError, now: float) -> None:
    """Answers with an error; on a stream that has begun, as its last event."""
    with suppress(ClientGone, TimeoutError):
        async with asyncio.timeout(REFUSAL_S):
            if exchange.streaming and exchange.broken_off is not None:
                await exchange.end(exchange.broken_off(answer))
            elif exchange.streaming:
                await exchange.end(b"%bdata: %b\n\n" % (exchange.error_event, exchange.error(answer)))
            elif not exchange.started:
                headers = [JSON_TYPE, *exchange.wording.limits(answer.headers(), now)]
                await exchange.respond(answer.status, exchange.error(answer), headers)


def _api(gateway: Gateway) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Serve sends requests to a new gateway at once: it has to know by then what is ready.
        await gateway.readiness.refresh()
        gateway.attending.add(gateway.readiness.watch())
        gateway.attending.add(gateway.answers.renew())
        gateway.attending.add(gateway.keys.note_uses())
        gateway.attending.add(gateway.admission.hold())
        gateway.attending.add(gateway.admission.look())
        yield
        await gateway.attending.stop()
        if gateway.inline is not None:
            gateway.inline.close()
        await gateway.admission.drain(DRAIN_S)
        await gateway.answers.drain(DRAIN_S)

    api = FastAPI(
        title="Cluster-Graph Hybrid",
        version=documentation.VERSION,
        description=documentation.DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # `serve_apps.reference` serves the document and the page
    )
    for part in (models, responses, graphs, runs, approvals, contexts, usage, tasks, health, *ADMIN):
        api.include_router(part.router(gateway))
    api.include_router(page.router())
    api.include_router(document.router(gateway, api))
    install_error_handlers(api)
    return api
