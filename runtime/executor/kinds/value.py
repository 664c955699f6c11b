"""`value`: what was bound is what comes out."""

from __future__ import annotations

from graphs.nodes.value import Value
from runtime.executor.kinds.kind import Evaluate, Resources, Values


def prepare(_spec: Value, _resources: Resources) -> Evaluate:
    return _evaluate


def _evaluate(inputs: Values) -> Values:
    return inputs
