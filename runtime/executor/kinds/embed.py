"""`embed`: one call to an embedding pool."""

from __future__ import annotations

from cluster import messages
from cluster.errors import InvalidCall
from graphs.nodes.embed import Embed
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Embed, resources: Resources) -> Perform:
    pool = resources.pools[spec.model]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        request = messages.Embed(
            request_id=call.request_id,
            model=spec.model,
            texts=[inputs["text"]],
            deadline=call.deadline,
            tenant=call.tenant,
            priority=call.priority,
        )
        tokens = pool.count_tokens(request)
        if tokens > spec.max_prompt_tokens:
            raise InvalidCall(
                f"the text has {tokens} tokens, {call.node} takes at most {spec.max_prompt_tokens}",
                param=call.node,
            )
        call.called(spec.model, tokens)
        reply = await pool.embed(request)
        call.owe(reply.usage)
        return {"embedding": reply.vectors[0]}

    return perform
