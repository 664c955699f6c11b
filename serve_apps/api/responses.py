"""OpenAI's Responses: `POST /v1/responses` as a raw ASGI endpoint, and what is kept of them under FastAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest

from cluster.interface import Batch
from cluster.messages import Message
from serve_apps.accounting.bills import tags_in
from serve_apps.api.common import caller_of, json_response
from serve_apps.api.parameters import asked_of, limit_of, one_of
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest, BodyTooLarge
from serve_apps.gateway.generating import Asked, Telling, generate
from serve_apps.gateway.responses import KeptResponse
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.translators import responses as bodies
from serve_apps.translators import responses_replies as replies
from serve_apps.translators.openai_replies import ContextVersion

MAX_STORED_BYTES: Final = 1024 * 1024
"""Of the body of a call whose response is stored."""
MAX_ITEMS: Final = 100
DEFAULT_ITEMS: Final = 20

ITEMS_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS, "default": DEFAULT_ITEMS},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "after": {"type": "string", "description": "The `last_id` of the page before."},
}

_NOT_FOR_GRAPHS = (
    *("temperature", "top_p", "max_output_tokens", "top_logprobs", "include"),
    *("tools", "tool_choice", "parallel_tool_calls", "text"),
)


async def create_response(request: Request) -> None:
    """Raises any `GatewayError`, `ClusterError`, `StoreError`."""
    gateway, exchange, caller = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_response(raw)
    bodies.check_response(body)
    items = bodies.input_items(body)
    if body.model.startswith(GRAPH_PREFIX):
        _check_for_graph(body)
    if body.store is not False and len(raw) > MAX_STORED_BYTES:
        raise BodyTooLarge(f"A response is stored of at most {MAX_STORED_BYTES} bytes: send 'store': false.")
    before: list[Message] = []
    if body.previous_response_id is not None:
        before = await gateway.responses.conversation(caller, body.previous_response_id)
    turns = bodies.turns_of(items, before)
    instructions = [Message("system", body.instructions)] if body.instructions else []
    exchange.tags = tags_in(body.metadata or {})
    asked = Asked(
        model=body.model,
        sampling=bodies.response_sampling(body),
        stream=bool(body.stream),
        wanted=body.max_output_tokens,
        size=len(raw) + sum(map(_size, before)),
        messages=[*instructions, *before, *turns],
        session=body.prompt_cache_key or body.safety_identifier or body.user or "",
        field="input",
    )
    telling = _telling(request, body, items, turns)
    await generate(request, asked, lambda _: telling)


def _telling(
    request: Request, body: bodies.ResponseBody, items: list[bodies.InputItem], turns: list[Message]
) -> Telling:
    gateway, exchange, caller = request
    teller = replies.Teller(f"resp_{exchange.id}", int(gateway.clock()), body)

    async def keep(events: Batch) -> ContextVersion | None:
        reply, usage = replies.whole(teller.id, events)
        response = KeptResponse(
            teller.id,
            body.model,
            msgspec.json.encode(teller.ended(reply, usage)),
            msgspec.json.encode(replies.told_items(items, teller.id)),
            [*turns, reply.turn()],
            body.previous_response_id,
        )
        await gateway.responses.put(caller.tenant, response)
        return None

    def answer(events: Batch) -> bytes:
        return msgspec.json.encode(teller.ended(*replies.whole(teller.id, events)))

    writer = None
    if body.stream:
        writer = replies.ResponseStream(teller)
        exchange.broken_off = writer.failed
    return Telling(writer, answer, None if body.store is False else keep)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["openai"])

    @routes.get("/v1/responses/{response_id}")
    async def get_response(response_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        asked_of(request, {})
        answer = await gateway.responses.answer(caller, response_id)
        return Response(answer, media_type="application/json")

    @routes.delete("/v1/responses/{response_id}")
    async def delete_response(response_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        await gateway.responses.delete(caller, response_id)
        return json_response(replies.ResponseDeleted(response_id))

    @routes.get("/v1/responses/{response_id}/input_items")
    async def list_input_items(response_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        asked = asked_of(request, ITEMS_PARAMETERS)
        limit = limit_of(asked.get("limit"), DEFAULT_ITEMS, MAX_ITEMS)
        order = one_of("order", asked.get("order"), ("asc", "desc"))
        items = msgspec.json.decode(await gateway.responses.items(caller, response_id))
        page = _page(items if order == "asc" else items[::-1], limit, asked.get("after"))
        return json_response(page)

    @routes.post("/v1/responses/{response_id}/cancel")
    async def cancel_response(response_id: str, request: HTTPRequest) -> Response:
        caller = await caller_of(gateway, request)
        await gateway.responses.answer(caller, response_id)
        raise BadRequest(
            "Only a response in the background can be cancelled, and no model has any: this one has ended. "
            "Close the connection to end one that is being made.",
            code="response_not_cancellable",
        )

    return routes


def _page(items: list[dict[str, Any]], limit: int, after: str | None) -> replies.InputItems:
    """Raises `BadRequest` for an `after` that is none of the items."""
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise BadRequest("'after' is no item of this input.", param="after", code="invalid_value")
    start = 0 if after is None else ids.index(after) + 1
    shown = items[start : start + limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else ("", "")
    return replies.InputItems(shown, first, last, start + limit < len(items))


def _check_for_graph(body: bodies.ResponseBody) -> None:
    for field in _NOT_FOR_GRAPHS:
        if getattr(body, field) is not None:
            raise BadRequest(
                f"{field!r} is decided by the graph's own nodes; leave it out.",
                param=field,
                code="unsupported_parameter",
            )


def _size(message: Message) -> int:
    return len(message.content) if isinstance(message.content, str) else len(repr(message))
