"""`embed`: one call to an embedding pool."""

from __future__ import annotations

import msgspec

from cluster import messages
from cluster.errors import InvalidCall
from cluster.interface import Pool
from graphs.nodes.embed import Embed
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Embed, resources: Resources) -> Perform:
    pool = resources.pools[spec.model]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        (vector,) = await vectors_of(pool, call, [inputs["text"]], spec.max_prompt_tokens, "the text")
        return {"embedding": vector}

    return perform


async def vectors_of(
    pool: Pool, call: NodeCall, texts: list[str], most: int, what: str, *, beside: int = 0
) -> list[list[float]]:
    """The vectors of `texts`, from one call, which the node owes.

    Raises `InvalidCall` where `texts` have more than `most` tokens, together with the `beside` of what was
    embedded before; `what` names them in the message.
    """
    request = messages.Embed(
        request_id=call.request_id,
        model=pool.info.name,
        texts=texts,
        deadline=call.deadline,
        tenant=call.tenant,
        priority=call.priority,
    )
    tokens = pool.count_tokens(request)
    if tokens + beside > most:
        message = f"{what} has {tokens + beside} tokens, {call.node} takes at most {most}"
        raise InvalidCall(message, param=call.node)
    call.called(request.model, tokens)
    reply = await pool.embed(msgspec.structs.replace(request, prompt_tokens=tokens))
    call.owe(reply.usage)
    return reply.vectors
