"""`loop`: pass after pass on the state that the one before has left."""

from __future__ import annotations

from graphs.bindings import Ref
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Loop, _resources: Resources) -> Perform:
    iteration = Ref(spec.as_, "iteration")

    async def perform(call: NodeCall, inputs: Values) -> Values:
        state, outputs = dict(inputs), {}
        passes = 0
        while passes < spec.max_iterations:
            given = {Ref(spec.as_, name): value for name, value in state.items()}
            passed = await call.run(BODY, {**given, iteration: passes}, f"[{passes}]")
            passes += 1
            outputs = passed.outputs
            state |= {name: value for name, value in outputs.items() if name in state}
            if passed.until:
                break
        return {**outputs, **state, "iterations": passes}

    return perform
