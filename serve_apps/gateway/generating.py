"""Calls for text, whatever the dialect they came in: from a model, or from a graph spoken to as one.

    decode (dialect) ─► route ─► prepare ─► reserve ─► call ─► tell (dialect)

The quota settles when the `charged` block ends, whatever ended it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from cluster.interface import Batch, Pool
from cluster.messages import Generate, Message, Sampling
from graphs.versions import AT
from runtime.request import RunRequest
from runtime.runner import validate_inputs
from serve_apps.accounting.prices import highest
from serve_apps.gateway.charging import charged
from serve_apps.gateway.conversation import Conversation, open_conversation
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.graph_calls import question_of, reply_batches
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.metering import GenerateMeter, Meter, RunMeter
from serve_apps.gateway.prompts import calls_of, together
from serve_apps.gateway.relay import Remember, Writer, collect, stream
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.gateway.routing import check_tools, find_graph, find_pool
from serve_apps.translators.openai import context_length_exceeded

T = TypeVar("T")
R = TypeVar("R")

LARGE_PROMPT_CHARS = 64 * 1024
"""From here on a prompt is counted in a thread: its tokenizer would hold up everybody else's requests."""
LEAST_OUTPUT_TOKENS = 16
"""Of each choice: where less is left of a limit, a call that named no bound is refused rather than cut."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call for text, as every dialect says it."""

    model: str
    """A model, or `graph/NAME`."""
    sampling: Sampling
    stream: bool
    wanted: int | None
    """The client's own bound of the output, in tokens."""
    size: int
    """About how many characters the prompt has."""
    messages: list[Message] | None = None
    prompts: Sequence[str] = ()
    """Instead of messages; each has choices of its own."""
    context_id: str | None = None
    """The conversation that the call continues."""
    session: str = ""
    """What the client names calls by that are likely to begin alike."""
    field: str = "messages"
    """What the client calls its prompt."""


@dataclass(frozen=True, slots=True)
class Telling:
    """How a reply is told to the client."""

    writer: Writer | None
    """Of a reply that is streamed."""
    whole: Callable[[Batch], bytes]
    """Of one that is not."""
    remember: Remember | None = None


Dialect = Callable[[Conversation | None], Telling]
"""How a call is told, given the conversation that it continues."""


async def generate(request: Request, asked: Asked, dialect: Dialect) -> None:
    """Answers a call for text. Raises any `GatewayError`, `ClusterError`, `StoreError`."""
    if asked.model.startswith(GRAPH_PREFIX) and asked.messages is not None:
        await _with_graph(request, asked, asked.messages, dialect)
    else:
        await _with_model(request, asked, dialect)


async def _with_model(request: Request, asked: Asked, dialect: Dialect) -> None:
    """Makes the call fit its model, reserves for it, makes it and tells the reply."""
    _, exchange, caller = request
    pool = find_pool(request, asked.model, "generate", asked.context_id or asked.session)
    asked = replace(asked, model=pool.info.name)
    check_tools(request, pool, asked.sampling)
    conversation = await open_conversation(request, asked.context_id)
    messages = asked.messages
    if conversation is not None and messages is not None:
        messages = conversation.prompt(messages)
    call = Generate(
        request_id=exchange.id,
        model=asked.model,
        max_tokens=asked.wanted or pool.info.default_max_tokens,
        deadline=exchange.deadline,
        messages=messages,
        sampling=asked.sampling,
        stream=asked.stream,
        tenant=caller.tenant,
        session=asked.context_id or asked.session,
    )
    calls = calls_of(call, asked.prompts) if asked.prompts else [call]
    size = asked.size + (conversation.size if conversation else 0)
    calls = [fitted(pool, each, await count(pool, each, size), asked) for each in calls]
    prompt_tokens = sum(each.prompt_tokens for each in calls)
    choices = asked.sampling.n * len(calls)
    # To quotas and bills it is one call, of as many choices as there are in all.
    call = msgspec.structs.replace(
        call,
        max_tokens=min(each.max_tokens for each in calls),
        sampling=msgspec.structs.replace(asked.sampling, n=choices),
    )
    price = request.gateway.price(asked.model)
    meter = GenerateMeter(pool, call, prompt_tokens, price)
    demand = Demand(
        asked.model,
        prompt_tokens,
        output_tokens=call.max_tokens * choices,
        least_output_tokens=None if asked.wanted else min(LEAST_OUTPUT_TOKENS, call.max_tokens) * choices,
        price=price,
        seconds=exchange.seconds,
        choices=choices,
    )
    async with charged(request, meter, demand) as ticket:
        if ticket.granted != demand:
            call = msgspec.structs.replace(call, max_tokens=ticket.granted.output_tokens // choices)
            meter.cut(call)
        calls = [msgspec.structs.replace(each, max_tokens=call.max_tokens) for each in calls]
        batches = together(pool, calls) if len(calls) > 1 else pool.generate(calls[0])
        await _tell(exchange, batches, meter, dialect(conversation))


async def count(pool: Pool, call: Generate, size: int) -> int:
    """Prompt tokens of a call of about so many characters."""
    return await aside(size, pool.count_tokens, call)


async def aside(size: int, tokenize: Callable[[T], R], what: T) -> R:
    """The result of a function of about so many characters; of many it is made in a thread."""
    if size > LARGE_PROMPT_CHARS:
        return await asyncio.to_thread(tokenize, what)
    return tokenize(what)


def fitted(pool: Pool, call: Generate, prompt_tokens: int, asked: Asked) -> Generate:
    """The call, its prompt counted, its output cut to what the model has room for. Raises `BadRequest`."""
    left = pool.info.max_context - prompt_tokens
    if left < (asked.wanted or 1):
        raise context_length_exceeded(pool.info.max_context, prompt_tokens, asked.wanted, asked.field)
    return msgspec.structs.replace(call, max_tokens=min(call.max_tokens, left), prompt_tokens=prompt_tokens)


async def _with_graph(request: Request, asked: Asked, messages: list[Message], dialect: Dialect) -> None:
    gateway, exchange, caller = request
    session = asked.context_id or asked.session
    name, info = find_graph(request, asked.model.removeprefix(GRAPH_PREFIX), session)
    if info.chat is None or gateway.runner is None:
        raise BadRequest(
            f"The graph {info.name!r} is not one to chat with: run it on /v1/graphs/{info.name}/runs.",
            param="model",
            code="model_not_supported",
        )
    conversation = await open_conversation(request, asked.context_id)
    question, history = question_of(conversation.prompt(messages) if conversation else messages)
    run = RunRequest(
        run_id=exchange.id,
        graph=name,
        inputs=validate_inputs(info.inputs, {info.chat.input: question}),
        deadline=exchange.deadline,
        tenant=caller.tenant,
        history=history if info.reads_history else [],
        stream=asked.stream,
        durability=info.durability,
    )
    meter = RunMeter(gateway.prices)
    # Never cut: a run that ends in the middle has cost what it has cost and has no outputs.
    demand = Demand(
        GRAPH_PREFIX + name.partition(AT)[0],
        input_tokens=0,
        output_tokens=info.token_bound,
        price=highest(gateway.prices, info.models),
        seconds=exchange.seconds,
    )
    async with charged(request, meter, demand):
        exchange.added_headers.append((b"x-run-id", run.run_id.encode()))
        await _tell(exchange, reply_batches(gateway, run, info.chat, meter), meter, dialect(conversation))


async def _tell(
    exchange: Exchange, batches: AsyncGenerator[Batch, None], meter: Meter, telling: Telling
) -> None:
    if telling.writer is not None:
        await stream(exchange, batches, meter, telling.writer, telling.remember)
        return
    events = await collect(batches, meter)
    if telling.remember is not None:
        context = await telling.remember(events)
        if context is not None:
            exchange.added_headers.append((b"x-context-version", b"%d" % context.version))
    await exchange.respond(200, telling.whole(events))
