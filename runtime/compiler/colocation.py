"""Which pools hand what to which: a hint for where to put their replicas.

    embed (minilm) ─► search ─► ask ─► answer (smollm2)      minilm → smollm2: an embedding's bytes a run

What flows passes through the nodes that call no model, and into and out of bodies. The bytes are estimates:
only their order counts.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping

from graphs.bindings import Binding, references
from graphs.ports import EMBEDDING
from runtime.compiler.draft import DraftNode, Scope
from runtime.compiler.estimates import LIKELY, TYPICAL_SHARE, visits_of

BYTES_PER_TOKEN = 4
EMBEDDING_BYTES = 4 * 384
"""Of the numbers of one embedding."""

Flow = Mapping[str, float]
"""By model: the bytes of it that a value holds, directly or not."""
Flows = ChainMap[str, Flow]
"""By owner of references."""


def colocated(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Pairs of models of which the second takes what the first made, those with most bytes first."""
    pairs: dict[tuple[str, str], float] = {}
    _follow(scope, ChainMap(), 1.0, pairs)
    return tuple(sorted(pairs, key=lambda pair: (-pairs[pair], pair)))


def _follow(scope: Scope, around: Flows, runs: float, pairs: dict[tuple[str, str], float]) -> Flow:
    """Adds up the pairs of a scope; what its results hold."""
    flows = around.new_child()
    for node_id in scope.sorted():
        node = scope.nodes[node_id]
        times = runs if node.when is None else runs * LIKELY
        taken = _merged(node.inputs.values(), flows)
        model = next(node.models(), None)
        if model is not None:
            for source, size in taken.items():
                if source != model:
                    pairs[source, model] = pairs.get((source, model), 0.0) + times * size
        given = [_through(node, key, taken, flows, times, pairs) for key in node.bodies]
        if model is not None:
            flows[node_id] = {model: _made(node)}
        else:
            flows[node_id] = _largest(given or [taken])
    return _merged(scope.results(), flows)


def _through(
    node: DraftNode,
    key: str,
    taken: Flow,
    flows: Flows,
    times: float,
    pairs: dict[tuple[str, str], float],
) -> Flow:
    """What a body gives; what the node takes is what its locals hold."""
    known: Flows = ChainMap() if node.spec.closed else flows
    inner = known.new_child(dict.fromkeys(node.spec.locals(key, {}), taken))
    return _follow(node.bodies[key], inner, times * visits_of(node)[key], pairs)


def _made(node: DraftNode) -> float:
    if EMBEDDING in node.spec.outputs({}).values():
        return EMBEDDING_BYTES
    return TYPICAL_SHARE * BYTES_PER_TOKEN * node.spec.tokens.output


def _merged(bindings: Iterable[Binding], flows: Flows) -> Flow:
    owners = dict.fromkeys(ref.owner for binding in bindings for ref in references(binding))
    return _largest(flows[owner] for owner in owners if owner in flows)


def _largest(flows: Iterable[Flow]) -> Flow:
    largest: dict[str, float] = {}
    for flow in flows:
        for model, size in flow.items():
            largest[model] = max(size, largest.get(model, 0.0))
    return largest
