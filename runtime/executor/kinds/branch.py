"""`branch`: the first case that holds. What it does not give is null.

Where the pipeline speculates, cases have begun before their conditions were known (`runtime.executor.early`).
"""

from __future__ import annotations

from graphs.nodes.branch import Branch
from runtime.executor.ahead import Ahead
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, nothing


def prepare(spec: Branch, resources: Resources) -> Perform:
    counts = resources.savings.counts

    async def perform(call: NodeCall, _inputs: Values) -> Values:
        async with Ahead(call, counts, spec.kind(), known=True) as ahead:
            case = next((key for key in call.bodies if call.holds(key)), None)
            passed = {} if case is None else (await ahead.take(case)).outputs
        return nothing(call) | passed

    return perform
