"""`router`: a model chooses, as in `classify`, and the body of the choice is run."""

from __future__ import annotations

from graphs.nodes.router import Router
from runtime.executor.kinds.choose import chooser
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, nothing


def prepare(spec: Router, resources: Resources) -> Perform:
    choose = chooser(resources.pools[spec.model], spec.choices, spec.max_prompt_tokens)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        async def chosen() -> str:
            return (await choose(call, inputs["text"])).name

        choice = await call.once("choice", chosen)
        passed = await call.run(choice, {}, f".{choice}")
        return {**nothing(call), **passed.outputs, "choice": choice}

    return perform
