"""`router`: a model chooses, as in `classify`, and the body of the choice is run.

Where the pipeline speculates, bodies begin while the model still chooses (`runtime.executor.ahead`).
"""

from __future__ import annotations

from graphs.nodes.router import Router
from runtime.executor.ahead import Ahead
from runtime.executor.kinds.choose import chooser
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, nothing

_CHOICE = "choice"


def prepare(spec: Router, resources: Resources) -> Perform:
    choose = chooser(resources.pools[spec.model], spec.choices, spec.max_prompt_tokens)
    counts = resources.savings.counts

    async def perform(call: NodeCall, inputs: Values) -> Values:
        async def chosen() -> str:
            return (await choose(call, inputs["text"])).name

        async with Ahead(call, counts, spec.kind(), known=call.kept(_CHOICE) is not None) as ahead:
            choice = await call.once(_CHOICE, chosen)
            passed = await ahead.take(choice)
        return {**nothing(call), **passed.outputs, "choice": choice}

    return perform
