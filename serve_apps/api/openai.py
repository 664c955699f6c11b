"""`POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`, as raw ASGI endpoints."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from cluster.interface import Pool
from cluster.messages import Embed, Message
from serve_apps.accounting.bills import tags_in
from serve_apps.gateway.charging import charged
from serve_apps.gateway.conversation import Conversation
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.generating import LARGE_PROMPT_CHARS, Asked, Telling, generate
from serve_apps.gateway.metering import EmbedMeter
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.gateway.routing import find_pool
from serve_apps.translators import openai as bodies
from serve_apps.translators import openai_replies as replies

_NOT_FOR_GRAPHS = (
    *("n", "temperature", "top_p", "top_k", "min_p", "stop", "seed", "max_tokens", "max_completion_tokens"),
    *(
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
    ),
    *("min_tokens", "ignore_eos", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
)


async def chat_completions(request: Request) -> None:
    raw = await request.exchange.body(request.gateway.settings.max_body_bytes)
    body = bodies.decode_chat(raw)
    bodies.check_chat(body)
    messages = bodies.chat_messages(body)
    if body.model.startswith(GRAPH_PREFIX):
        _check_for_graph(body)
    request.exchange.tags = tags_in(body.metadata or {})
    asked = Asked(
        model=body.model,
        sampling=bodies.chat_sampling(body),
        stream=bool(body.stream),
        wanted=body.max_completion_tokens or body.max_tokens,
        size=len(raw),
        messages=messages,
        context_id=body.context_id,
        session=body.prompt_cache_key or body.user or "",
    )
    await generate(request, asked, partial(_chat_telling, request, body, messages))


async def completions(request: Request) -> None:
    gateway, exchange, _ = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_completion(raw)
    asked = Asked(
        model=body.model,
        sampling=bodies.completion_sampling(body),
        stream=bool(body.stream),
        wanted=body.max_tokens,
        size=len(raw),
        prompts=bodies.check_completion(body),
        session=body.prompt_cache_key or body.user or "",
        field="prompt",
    )
    label = replies.Label(f"cmpl-{exchange.id}", body.model, int(gateway.clock()))
    writer = replies.CompletionStream(label, include_usage=_include_usage(body)) if body.stream else None
    telling = Telling(writer, partial(replies.completion_answer, label))
    await generate(request, asked, lambda _: telling)


async def embeddings(request: Request) -> None:
    gateway, exchange, caller = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_embedding(raw)
    texts = bodies.embedding_texts(body)
    pool = find_pool(request, body.model, "embed")
    model = pool.info.name
    call = Embed(exchange.id, model, texts, exchange.deadline, caller.tenant)
    if len(raw) > LARGE_PROMPT_CHARS:
        tokens = await asyncio.to_thread(_embed_tokens, pool, call)
    else:
        tokens = _embed_tokens(pool, call)
    price = gateway.price(model)
    meter = EmbedMeter(model, tokens, price)
    demand = Demand(model, tokens, 0, price=price, seconds=exchange.seconds)
    async with charged(request, meter, demand):
        result = await pool.embed(msgspec.structs.replace(call, prompt_tokens=tokens))
        meter.usage = result.usage
        base64 = body.encoding_format == "base64"
        await exchange.respond(200, replies.embedding_answer(body.model, result, base64=base64))


def _check_for_graph(body: bodies.ChatBody) -> None:
    for field in _NOT_FOR_GRAPHS:
        if getattr(body, field) is not None:
            raise BadRequest(
                f"{field!r} is decided by the graph's own nodes; leave it out.",
                param=field,
                code="unsupported_parameter",
            )


def _chat_telling(
    request: Request, body: bodies.ChatBody, messages: list[Message], conversation: Conversation | None
) -> Telling:
    label = replies.Label(f"chatcmpl-{request.exchange.id}", body.model, int(request.gateway.clock()))
    remember = partial(conversation.remember, messages) if conversation is not None else None
    writer = (
        replies.ChatStream(label, include_usage=_include_usage(body), hold_finish=remember is not None)
        if body.stream
        else None
    )
    return Telling(writer, partial(replies.chat_answer, label), remember)


def _embed_tokens(pool: Pool, call: Embed) -> int:
    """Tokens of all texts. Raises `BadRequest` when one does not fit the model."""
    total = pool.count_tokens(call)
    limit = pool.info.max_context
    if total > limit:
        for index, text in enumerate(call.texts):
            tokens = pool.count_tokens(msgspec.structs.replace(call, texts=[text]))
            if tokens > limit:
                raise bodies.context_length_exceeded(limit, tokens, None, f"input[{index}]")
    return total


def _include_usage(body: bodies.ChatBody | bodies.CompletionBody) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)
