"""`classify`: one choice between the labels."""

from __future__ import annotations

from graphs.nodes.classify import Classify
from runtime.executor.kinds.choose import chooser
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Classify, resources: Resources) -> Perform:
    choose = chooser(resources.pools[spec.model], spec.labels, spec.max_prompt_tokens)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        label, confidence = await choose(call, inputs["text"])
        return {"label": label, "confidence": confidence}

    return perform
