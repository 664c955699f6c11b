"""Stage 3, prune: nothing is run whose result is known already, or is not wanted.

Reason: the cheapest node is the one that is not there. What is constant is computed once, now, by the very
code that would run it; a value that only passes another on is left out; what reaches no output is dropped.

    role = "brief" ─► ask ─► answer ─► text         ask' ─► answer ─► text
    spare                                     ──►
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
from msgspec.structs import replace

from cluster.errors import ClusterError
from graphs.bindings import Binding, Literal, Ref, references
from graphs.errors import PipelineError, Problem
from graphs.nodes.value import Value
from graphs.pipeline import NodeId
from graphs.validation import reaching_outputs
from runtime.compiler.draft import Change, Draft, DraftNode, owners, substitute
from runtime.executor.kinds.registry import evaluator

MAX_CONSTANT_CHARS = 65_536
"""Length of a computed text above which it is left to the run."""


def prune(draft: Draft) -> Draft:
    """Raises `PipelineError` for a constant that cannot be computed."""
    folded, changes = _fold(draft)
    kept = _wanted(folded)
    dropped = [
        Change(node_id, "dropped", "reaches no output") for node_id in folded.nodes if node_id not in kept
    ]
    nodes = {node_id: node for node_id, node in folded.nodes.items() if node_id in kept}
    return folded.becomes(nodes=nodes, changes=(*changes, *dropped))


def _fold(draft: Draft) -> tuple[Draft, list[Change]]:
    """Without the nodes whose outputs are constants or other nodes' values."""
    known: dict[Ref, Binding] = {}
    nodes: dict[NodeId, DraftNode] = {}
    waited: dict[NodeId, tuple[NodeId, ...]] = {}
    changes: list[Change] = []
    problems: list[Problem] = []
    for node_id in nx.topological_sort(draft.graph):
        node = draft.nodes[node_id]
        inputs = {port: substitute(binding, known) for port, binding in node.inputs.items()}
        after = _after(node, inputs, waited)
        given = inputs.get("value")
        if isinstance(node.spec, Value) and isinstance(given, Ref):
            known[Ref(node_id, "value")] = given
            waited[node_id] = (*after, *owners([given]))
            changes.append(Change(node_id, "left out", f"only passes on {given}"))
            continue
        outputs = None
        if node.spec.cheap and node.spec.effects == "pure":
            try:
                outputs = _constant(node, inputs)
            except ClusterError as error:
                problems.append(Problem("bad-constant", error.message, ("nodes", node_id), on_key=True))
        if outputs is None:
            nodes[node_id] = replace(node, inputs=inputs, after=after)
            continue
        known |= {Ref(node_id, port): Literal(value) for port, value in outputs.items()}
        waited[node_id] = after
        changes.append(Change(node_id, "computed now", "its inputs are constants"))
    if problems:
        raise PipelineError(problems)
    ordered = {node_id: nodes[node_id] for node_id in draft.nodes if node_id in nodes}
    results = {name: substitute(binding, known) for name, binding in draft.outputs.items()}
    return draft.becomes(nodes=ordered, outputs=results), changes


def _after(
    node: DraftNode, inputs: dict[str, Binding], waited: Mapping[NodeId, tuple[NodeId, ...]]
) -> tuple[NodeId, ...]:
    """What the node comes after, now that others are gone: who came after them comes after what they waited
    for."""
    named = {kept: None for other in node.after for kept in waited.get(other, (other,))}
    through = {kept: None for owner in owners(node.inputs.values()) for kept in waited.get(owner, ())}
    taken = owners(inputs.values())
    return tuple(other for other in {**named, **through} if other not in taken)


def _constant(node: DraftNode, inputs: dict[str, Binding]) -> dict[str, object] | None:
    """What the node computes, where that is known and small."""
    values = {port: binding.value for port, binding in inputs.items() if isinstance(binding, Literal)}
    if len(values) < len(inputs):
        return None
    outputs = evaluator(node.spec)(values)
    small = all(len(value) <= MAX_CONSTANT_CHARS for value in outputs.values() if isinstance(value, str))
    return outputs if small else None


def _wanted(draft: Draft) -> set[str]:
    effects = [
        Ref(node_id, port)
        for node_id, node in draft.nodes.items()
        if node.spec.effects == "effectful"
        for port in node.spec.outputs({})
    ]
    refs = [ref for binding in draft.outputs.values() for ref in references(binding)]
    return reaching_outputs(draft.graph, [*refs, *effects])
