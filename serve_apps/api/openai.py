"""`POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`, as raw ASGI endpoints.

Each peels one call: decode ─► route ─► prepare ─► reserve ─► call ─► tell. The quota settles when the
`charged` block ends, whatever ended it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from cluster.interface import Batch, Pool
from cluster.messages import Embed, Generate, Message
from runtime.request import RunRequest
from runtime.runner import validate_inputs
from serve_apps.gateway.charging import charged
from serve_apps.gateway.conversation import Conversation, open_conversation
from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.graph_calls import question_of, reply_batches
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.metering import EmbedMeter, GenerateMeter, Meter, RunMeter
from serve_apps.gateway.relay import Remember, Writer, collect, stream
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.gateway.routing import find_graph, find_pool
from serve_apps.translators import openai as bodies
from serve_apps.translators import openai_replies as replies

LARGE_PROMPT_CHARS = 64 * 1024
"""From here on a prompt is counted in a thread: its tokenizer would hold up everybody else's requests."""

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


@dataclass(frozen=True, slots=True)
class Telling:
    """How a reply is told to the client."""

    writer: Writer | None
    """Of a reply that is streamed."""
    whole: Callable[[Batch], bytes]
    """Of one that is not."""
    remember: Remember | None = None


async def chat_completions(request: Request) -> None:
    raw = await request.exchange.body(request.gateway.settings.max_body_bytes)
    body = bodies.decode_chat(raw)
    bodies.check_chat(body)
    messages = bodies.chat_messages(body)
    if body.model.startswith(GRAPH_PREFIX):
        await _chat_with_graph(request, body, messages)
    else:
        await _chat_with_model(request, body, messages, len(raw))


async def completions(request: Request) -> None:
    gateway, exchange, key = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_completion(raw)
    prompt = bodies.check_completion(body)
    pool = find_pool(request, body.model, "generate")
    call = Generate(
        request_id=exchange.id,
        model=body.model,
        max_tokens=body.max_tokens or pool.info.default_max_tokens,
        deadline=exchange.deadline,
        prompt=prompt,
        sampling=bodies.completion_sampling(body),
        stream=bool(body.stream),
        tenant=key.tenant,
    )
    label = replies.Label(f"cmpl-{exchange.id}", body.model, int(gateway.clock()))
    writer = replies.CompletionStream(label, include_usage=_include_usage(body)) if body.stream else None
    telling = Telling(writer, partial(replies.completion_answer, label))
    await _generate(request, pool, call, body.max_tokens, len(raw), telling)


async def embeddings(request: Request) -> None:
    gateway, exchange, key = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = bodies.decode_embedding(raw)
    texts = bodies.embedding_texts(body)
    pool = find_pool(request, body.model, "embed")
    call = Embed(exchange.id, body.model, texts, exchange.deadline, key.tenant)
    if len(raw) > LARGE_PROMPT_CHARS:
        tokens = await asyncio.to_thread(_embed_tokens, pool, call)
    else:
        tokens = _embed_tokens(pool, call)
    meter = EmbedMeter(tokens)
    async with charged(request, meter, tokens):
        result = await pool.embed(call)
        meter.usage = result.usage
        base64 = body.encoding_format == "base64"
        await exchange.respond(200, replies.embedding_answer(body.model, result, base64=base64))


async def _chat_with_model(
    request: Request, body: bodies.ChatBody, messages: list[Message], size: int
) -> None:
    _, exchange, key = request
    pool = find_pool(request, body.model, "generate")
    conversation = await open_conversation(request, body.context_id)
    wanted = body.max_completion_tokens or body.max_tokens
    call = Generate(
        request_id=exchange.id,
        model=body.model,
        max_tokens=wanted or pool.info.default_max_tokens,
        deadline=exchange.deadline,
        messages=conversation.prompt(messages) if conversation else messages,
        sampling=bodies.chat_sampling(body),
        stream=bool(body.stream),
        tenant=key.tenant,
    )
    if conversation is not None:
        size += conversation.size
    telling = _chat_telling(request, body, messages, conversation)
    await _generate(request, pool, call, wanted, size, telling)


async def _chat_with_graph(request: Request, body: bodies.ChatBody, messages: list[Message]) -> None:
    gateway, exchange, key = request
    for field in _NOT_FOR_GRAPHS:
        if getattr(body, field) is not None:
            raise BadRequest(
                f"{field!r} is decided by the graph's own nodes; leave it out.",
                param=field,
                code="unsupported_parameter",
            )
    name = body.model.removeprefix(GRAPH_PREFIX)
    info = find_graph(request, name)
    if info.chat is None or gateway.runner is None:
        raise BadRequest(
            f"The graph {info.name!r} is not one to chat with: run it on /v1/graphs/{info.name}/runs.",
            param="model",
            code="model_not_supported",
        )
    conversation = await open_conversation(request, body.context_id)
    question, history = question_of(conversation.prompt(messages) if conversation else messages)
    run = RunRequest(
        run_id=exchange.id,
        graph=name,
        inputs=validate_inputs(info.inputs, {info.chat.input: question}),
        deadline=exchange.deadline,
        tenant=key.tenant,
        history=history if info.reads_history else [],
        stream=bool(body.stream),
        durability=info.durability,
    )
    meter = RunMeter()
    telling = _chat_telling(request, body, messages, conversation)
    async with charged(request, meter, info.token_bound):
        exchange.added_headers.append((b"x-run-id", run.run_id.encode()))
        await _tell(exchange, reply_batches(gateway, run, info.chat, meter), meter, telling)


async def _generate(
    request: Request, pool: Pool, call: Generate, wanted: int | None, size: int, telling: Telling
) -> None:
    """Makes the call fit its model, reserves for it, makes it and tells the reply.

    `wanted` is the client's own bound of the output; `size` is about how many characters the prompt has.
    """
    if size > LARGE_PROMPT_CHARS:
        prompt_tokens = await asyncio.to_thread(pool.count_tokens, call)
    else:
        prompt_tokens = pool.count_tokens(call)
    left = pool.info.max_context - prompt_tokens
    if left < (wanted or 1):
        param = "prompt" if call.messages is None else "messages"
        raise bodies.context_length_exceeded(pool.info.max_context, prompt_tokens, wanted, param)
    if call.max_tokens > left:
        call = msgspec.structs.replace(call, max_tokens=left)
    meter = GenerateMeter(pool, call, prompt_tokens)
    most = prompt_tokens + call.max_tokens * call.sampling.n
    async with charged(request, meter, most):
        await _tell(request.exchange, pool.generate(call), meter, telling)


async def _tell(
    exchange: Exchange, batches: AsyncGenerator[Batch, None], meter: Meter, telling: Telling
) -> None:
    if telling.writer is not None:
        await stream(exchange, batches, meter, telling.writer, telling.remember)
        return
    events = await collect(batches, meter)
    if telling.remember is not None:
        context = await telling.remember(events)
        exchange.added_headers.append((b"x-context-version", b"%d" % context.version))
    await exchange.respond(200, telling.whole(events))


def _chat_telling(
    request: Request, body: bodies.ChatBody, messages: list[Message], conversation: Conversation | None
) -> Telling:
    label = replies.Label(f"chatcmpl-{request.exchange.id}", body.model, int(request.gateway.clock()))
    remember = partial(_remember, conversation, messages) if conversation is not None else None
    writer = (
        replies.ChatStream(label, include_usage=_include_usage(body), hold_finish=remember is not None)
        if body.stream
        else None
    )
    return Telling(writer, partial(replies.chat_answer, label), remember)


async def _remember(
    conversation: Conversation, messages: list[Message], events: Batch
) -> replies.ContextVersion:
    return await conversation.keep(messages, replies.assistant_turn(events))


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
