"""`tool`: one call of a tool of an MCP server."""

from __future__ import annotations

import msgspec

from graphs.nodes.tool import Tool
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Tool, resources: Resources) -> Perform:
    server = resources.servers[spec.server]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        arguments = msgspec.to_builtins(inputs)
        result = await server.call(spec.tool, arguments, call.deadline, call.idempotency_key)
        return {"text": result.text, "data": result.data}

    return perform
