"""`retrieve`: searches an index in the runner's own memory."""

from __future__ import annotations

from graphs.nodes.retrieve import MAX_TOP_K, Retrieve
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, Resources, Values


def prepare(spec: Retrieve, resources: Resources) -> Evaluate:
    index = resources.indexes[spec.index]

    def evaluate(inputs: Values) -> Values:
        top_k = int(inputs["top_k"])  # JSON Schema takes 3.0 for an integer
        if not 1 <= top_k <= MAX_TOP_K:
            raise NodeError(f"top_k is {top_k}, it must be from 1 to {MAX_TOP_K}", param="top_k")
        return {"documents": index.search(inputs["embedding"], top_k)}

    return evaluate
