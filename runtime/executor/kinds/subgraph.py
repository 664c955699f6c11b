"""`subgraph`: the other pipeline, once."""

from __future__ import annotations

from graphs.bindings import INPUTS, Ref
from graphs.nodes.map import BODY
from graphs.nodes.subgraph import Subgraph
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(_spec: Subgraph, _resources: Resources) -> Perform:
    return _perform


async def _perform(call: NodeCall, inputs: Values) -> Values:
    given = {Ref(INPUTS, name): value for name, value in inputs.items()}
    return (await call.run(BODY, given, "")).outputs
