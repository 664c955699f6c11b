"""`llm`: one chat call to a generating pool, streamed where the node and the run both want it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec

from cluster.errors import InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Batch, Pool
from cluster.messages import Delta, Finish, Generate, Message, Sampling, Usage
from graphs.nodes.llm import Llm
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Llm, resources: Resources) -> Perform:
    pool = resources.pools[spec.model]
    sampling = Sampling(
        temperature=spec.temperature, top_p=spec.top_p, seed=spec.seed, stop=list(spec.stop) or None
    )
    system = [] if spec.system is None else [Message("system", spec.system)]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        request = Generate(
            request_id=call.request_id,
            model=spec.model,
            max_tokens=spec.max_tokens,
            deadline=call.deadline,
            messages=[*system, *map(_message, inputs["history"]), Message("user", inputs["prompt"])],
            sampling=sampling,
            stream=spec.stream and call.stream,
            tenant=call.tenant,
            priority=call.priority,
        )
        tokens = pool.count_tokens(request)
        if tokens > spec.max_prompt_tokens:
            raise InvalidCall(
                f"the prompt has {tokens} tokens, {call.node} takes at most {spec.max_prompt_tokens}",
                param=call.node,
            )
        call.called(spec.model, tokens)
        return await collect(pool, request, tokens, call)

    return perform


async def collect(pool: Pool, request: Generate, prompt_tokens: int, call: NodeCall) -> Values:
    """The whole text; on the way its pieces, and at the end, however it ends, what is owed."""
    pieces: list[str] = []
    reason = "stop"
    usage: Usage | None = None
    try:
        async with aclosing(_closable(pool.generate(request))) as batches:
            async for batch in batches:
                text = "".join(event.text for event in batch if isinstance(event, Delta))
                pieces.append(text)
                for event in batch:
                    if isinstance(event, Finish):
                        reason = event.reason
                    elif isinstance(event, Usage):
                        usage = event
                if text and request.stream:
                    await call.delta(text)
    except (Overloaded, ModelUnavailable, InvalidCall):
        usage = usage or (None if any(pieces) else Usage())
        raise
    finally:
        call.owe(usage if usage is not None else _observed(pool, request, prompt_tokens, "".join(pieces)))
    return {"text": "".join(pieces), "finish_reason": reason}


def _observed(pool: Pool, request: Generate, prompt_tokens: int, text: str) -> Usage:
    """What a call had used when it ended before the engine could say."""
    if not text:
        return Usage(prompt_tokens)
    again = msgspec.structs.replace(request, messages=None, prompt=text)
    return Usage(prompt_tokens, min(request.max_tokens, pool.count_tokens(again)))


def _closable(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """Pools give generators; the interface only promises iterators that can be closed."""
    return cast("AsyncGenerator[Batch, None]", batches)


def _message(turn: Message | Mapping[str, Any]) -> Message:
    return turn if isinstance(turn, Message) else msgspec.convert(turn, Message)
