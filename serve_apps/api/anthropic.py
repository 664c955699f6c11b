"""`POST /v1/messages` and `/v1/messages/count_tokens`, as raw ASGI endpoints in Anthropic's dialect."""

from __future__ import annotations

from functools import partial

import msgspec

from cluster.messages import Generate
from serve_apps.gateway.charging import charged
from serve_apps.gateway.conversation import Conversation
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.generating import Asked, Telling, aside, generate
from serve_apps.gateway.metering import FreeMeter
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.gateway.routing import find_tokenizer
from serve_apps.translators import anthropic as bodies
from serve_apps.translators import anthropic_replies as replies

_NOT_FOR_GRAPHS = ("temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice", "output_config")


async def messages(request: Request) -> None:
    """To a graph `max_tokens`, which every call has, says nothing: its nodes have their own bounds."""
    exchange = request.exchange
    raw = await exchange.body(request.gateway.settings.max_body_bytes)
    body = bodies.decode_messages(raw)
    bodies.check(body)
    if body.model.startswith(GRAPH_PREFIX):
        _check_for_graph(body)
    turns = bodies.chat_messages(body)
    asked = Asked(
        model=body.model,
        sampling=bodies.chat_sampling(body),
        stream=bool(body.stream),
        wanted=body.max_tokens,
        size=len(raw),
        messages=turns,
        context_id=body.context_id,
        session=(body.metadata.user_id or "") if body.metadata else "",
    )
    label = replies.MessageLabel(f"msg_{exchange.id}", body.model)

    def telling(conversation: Conversation | None) -> Telling:
        return Telling(
            replies.MessageStream(label) if body.stream else None,
            partial(replies.message_answer, label),
            partial(conversation.remember, turns) if conversation is not None else None,
        )

    await generate(request, asked, telling)


async def count_tokens(request: Request) -> None:
    """Counts as a request, and takes no tokens."""
    gateway, exchange, _ = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_count(raw)
    bodies.check(body)
    tokenizer = find_tokenizer(request, body.model)
    call = Generate(
        request_id=exchange.id,
        model=body.model,
        max_tokens=1,
        deadline=exchange.deadline,
        messages=bodies.chat_messages(body),
        sampling=bodies.prompt_sampling(body),
    )
    async with charged(request, FreeMeter(), Demand(body.model, 0, 0, seconds=exchange.seconds)):
        tokens = await aside(len(raw), tokenizer.encode, call)
        await exchange.respond(200, msgspec.json.encode(replies.TokenCount(len(tokens.ids))))


def _check_for_graph(body: bodies.MessagesBody) -> None:
    for field in _NOT_FOR_GRAPHS:
        if getattr(body, field) is not None:
            raise BadRequest(
                f"{field!r} is decided by the graph's own nodes; leave it out.",
                param=field,
                code="unsupported_parameter",
            )
