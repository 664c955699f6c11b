"""`loop`: pass after pass on the state that the one before has left.

Whoever goes on with a run begins at the pass in which it stopped: under `3` it is kept what the first three
have left.
"""

from __future__ import annotations

from graphs.bindings import Ref
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.values import larger_than

MAX_STATE_BYTES = 4 * 2**20
"""A pass may hold what the one before has left several times over, so that it would grow without bound."""


def prepare(spec: Loop, _resources: Resources) -> Perform:
    iteration = Ref(spec.as_, "iteration")

    async def perform(call: NodeCall, inputs: Values) -> Values:
        passes = call.last_kept
        outputs: Values = call.kept(f"{passes}") if passes else {}
        state = inputs | {name: value for name, value in outputs.items() if name in inputs}
        while passes < spec.max_iterations:
            given = {Ref(spec.as_, name): value for name, value in state.items()}
            passed = await call.run(BODY, {**given, iteration: passes}, f"[{passes}]")
            passes += 1
            outputs = passed.outputs
            state |= {name: value for name, value in outputs.items() if name in state}
            if larger_than(state, MAX_STATE_BYTES):
                message = f"the state is larger than {MAX_STATE_BYTES // 2**20} MiB after pass {passes}"
                raise NodeError(message)
            if passed.until:
                break
            call.keep(f"{passes}", {**outputs, **state}, [f"[{passes - 1}]", f"+{passes - 1}"])
        return {**outputs, **state, "iterations": passes}

    return perform
