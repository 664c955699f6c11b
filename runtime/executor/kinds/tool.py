"""`tool`: one call of a tool of an MCP server."""

from __future__ import annotations

import msgspec

from graphs.nodes.tool import Tool
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Tool, resources: Resources) -> Perform:
    server = resources.servers[spec.server]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        result = await server.call(spec.tool, msgspec.to_builtins(inputs), call.deadline)
        return {"text": result.text, "data": result.data}

    return perform
