"""`branch`: the first case that holds. What it does not give is null."""

from __future__ import annotations

from graphs.nodes.branch import Branch
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, nothing


def prepare(_spec: Branch, _resources: Resources) -> Perform:
    return _perform


async def _perform(call: NodeCall, _inputs: Values) -> Values:
    case = next((key for key in call.bodies if call.holds(key)), None)
    return nothing(call) if case is None else nothing(call) | (await call.run(case, {}, f".{case}")).outputs
