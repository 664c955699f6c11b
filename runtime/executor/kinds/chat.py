"""One chat call for a node: bounded, reported, streamed where it is wanted, and owed however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec

from cluster.errors import InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Batch, Pool
from cluster.messages import Delta, Finish, Generate, Message, Usage
from runtime.executor.kinds.kind import NodeCall
from runtime.executor.kinds.likely import Likely

Hear = Callable[[Batch], Awaitable[None]]
"""Is given each batch of a reply when it comes."""


class Answer(msgspec.Struct):
    """One choice of a reply."""

    text: str = ""
    reason: str = "stop"


async def ask(
    pool: Pool,
    request: Generate,
    call: NodeCall,
    max_prompt_tokens: int,
    likely: Likely,
    what: str = "the prompt",
    hear: Hear | None = None,
) -> list[Answer]:
    """The answers, one for each choice; `hear` is given what comes on the way. `likely` is told how long they
    were.

    Raises `InvalidCall`, naming `what` is too long, for a prompt over `max_prompt_tokens`, before anything is
    sent, and `ClusterError`.
    """
    tokens = pool.count_tokens(request)
    if tokens > max_prompt_tokens:
        message = f"{what} has {tokens} tokens, {call.node} takes at most {max_prompt_tokens}"
        raise InvalidCall(message, param=call.node)
    call.called(request.model, tokens)
    request = msgspec.structs.replace(
        request,
        prompt_tokens=tokens,
        expected_tokens=likely.tokens(request.max_tokens),
        session=call.run_id,
    )
    answers, usage = await _collect(pool, request, call, hear)
    if usage is not None:
        likely.learn(usage.completion_tokens / request.sampling.n, request.max_tokens)
    return answers


def as_message(turn: Message | Mapping[str, Any]) -> Message:
    """A turn of a conversation, whether or not it came as JSON."""
    return turn if isinstance(turn, Message) else msgspec.convert(turn, Message)


async def _collect(
    pool: Pool, request: Generate, call: NodeCall, hear: Hear | None
) -> tuple[list[Answer], Usage | None]:
    """The answers, and what the engine says that they took; at the end, however it ends, that is owed."""
    pieces: list[list[str]] = [[] for _ in range(request.sampling.n)]
    reasons = ["stop"] * len(pieces)
    usage: Usage | None = None
    engine_ns = 0
    try:
        async with aclosing(_closable(pool.generate(request))) as batches:
            async for batch in batches:
                for event in batch:
                    if isinstance(event, Delta):
                        pieces[event.index].append(event.text)
                        engine_ns = event.engine_ns or engine_ns
                    elif isinstance(event, Finish):
                        reasons[event.index] = event.reason
                    else:
                        usage = event
                if hear is not None:
                    await hear(batch)
    except (Overloaded, ModelUnavailable, InvalidCall):
        usage = usage or (None if any(map(any, pieces)) else Usage())
        raise
    finally:
        call.owe(usage if usage is not None else _observed(pool, request, pieces, engine_ns))
    answers = [Answer("".join(text), reason) for text, reason in zip(pieces, reasons, strict=True)]
    return answers, usage


def _observed(pool: Pool, request: Generate, pieces: list[list[str]], engine_ns: int) -> Usage:
    """What a call had used when it ended before the engine could say; of its time, what it had said last."""
    completion = 0
    for text in filter(None, map("".join, pieces)):
        again = msgspec.structs.replace(request, messages=None, prompt=text)
        completion += min(request.max_tokens, pool.count_tokens(again))
    return Usage(request.prompt_tokens, completion, engine_ns=engine_ns)


def _closable(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """Pools give generators; the interface only promises iterators that can be closed."""
    return cast("AsyncGenerator[Batch, None]", batches)
