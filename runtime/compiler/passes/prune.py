"""Stage 3, prune: nothing is run whose result is known already, or is not wanted.

Reason: the cheapest node is the one that is not there. What is constant is computed once, now, by the very
code that would run it; a value that only passes another on is left out; a node whose condition never holds,
or that needs one of these, is dropped; so is what reaches no output.

    role = "brief" ─► ask ─► answer ─► text         ask' ─► answer ─► text
    spare                                     ──►
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
from msgspec.structs import replace

from cluster.errors import ClusterError
from graphs.bindings import Binding, Literal, Ref, references
from graphs.conditions import Condition, ConditionError, predicate_of
from graphs.errors import PipelineError, Problem
from graphs.nodes.value import Value
from graphs.pipeline import NodeId
from graphs.validation import reaching_outputs
from runtime.compiler.draft import Change, Draft, DraftNode, owners, rewired, substitute, substituted
from runtime.executor.kinds.registry import evaluator

MAX_CONSTANT_CHARS = 65_536
"""Length of a computed text above which it is left to the run."""


def prune(draft: Draft) -> Draft:
    """Raises `PipelineError` for a constant that cannot be computed."""
    folder = _Folder(draft)
    for node_id in nx.topological_sort(draft.graph):
        folder.take(node_id)
    if folder.problems:
        raise PipelineError(folder.problems)
    folded = draft.becomes(
        nodes={node_id: folder.nodes[node_id] for node_id in draft.nodes if node_id in folder.nodes},
        outputs={name: folder.output(name, binding) for name, binding in draft.outputs.items()},
    )
    kept = _wanted(folded)
    dropped = [
        Change(node_id, "dropped", "reaches no output") for node_id in folded.nodes if node_id not in kept
    ]
    nodes = {node_id: node for node_id, node in folded.nodes.items() if node_id in kept}
    return folded.becomes(nodes=nodes, changes=(*folder.changes, *dropped))


class _Folder:
    """Leaves out the nodes whose outputs are constants, other nodes' values, or always absent."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[Ref, Binding] = {}
        """What stands in for the outputs of the nodes that were left out; null for what is absent."""
        self._absent: set[Ref] = set()
        self._waited: dict[NodeId, tuple[NodeId, ...]] = {}
        """What the nodes that were left out had waited for."""
        self.nodes: dict[NodeId, DraftNode] = {}
        self.changes: list[Change] = []
        self.problems: list[Problem] = []

    def take(self, node_id: NodeId) -> None:
        """Keeps a node or leaves it out. All that it refers to was taken before."""
        node = self._draft.nodes[node_id]
        inputs, missing = self._inputs(node)
        after = self._after(node, inputs)
        when = substituted(node.when, self._known)
        holds = self._holds(node_id, when)
        if missing is not None or holds is False:
            why = "its condition never holds" if missing is None else f"its input {missing} is always absent"
            self._leave_out_absent(node_id, node, why)
            self._waited[node_id] = (*after, *owners(inputs.values()))
            return
        wired = rewired(node, self._known)
        fresh = replace(wired, inputs=inputs, after=after, when=None if holds else when)
        if not self._fold(node_id, fresh):
            self.nodes[node_id] = fresh

    def output(self, name: str, binding: Binding) -> Binding:
        """An output of the pipeline, with what is known put in."""
        if isinstance(binding, Ref) and binding in self._absent:
            return Literal(self._draft.pipeline.defaults[name])
        return substitute(binding, self._known)

    def _inputs(self, node: DraftNode) -> tuple[dict[str, Binding], str | None]:
        """The inputs with what is known put in, and the name of one that is needed and always absent."""
        ports = node.spec.inputs()
        inputs: dict[str, Binding] = {}
        missing: str | None = None
        for name, binding in node.inputs.items():
            inputs[name] = substitute(binding, self._known)
            if isinstance(binding, Ref) and binding in self._absent:
                if ports[name].required:
                    missing = name
                elif ports[name].type.name != "optional":
                    inputs[name] = Literal(ports[name].default)
        return inputs, missing

    def _after(self, node: DraftNode, inputs: Mapping[str, Binding]) -> tuple[NodeId, ...]:
        """What the node comes after, now that others are gone: who came after them comes after what they
        waited for."""
        waited = self._waited
        named = {kept: None for other in node.after for kept in waited.get(other, (other,))}
        through = {kept: None for owner in owners(node.bindings()) for kept in waited.get(owner, ())}
        taken = owners(inputs.values())
        return tuple(other for other in {**named, **through} if other not in taken)

    def _holds(self, node_id: NodeId, when: Condition | None) -> bool | None:
        """Whether a condition holds, where that is known now."""
        if when is None:
            return None
        values = [each.binding.value for each in when.operands if isinstance(each.binding, Literal)]
        if len(values) < len(when.operands):
            return None
        try:
            return predicate_of(when)(values)
        except ConditionError as error:
            self.problems.append(Problem("bad-constant", str(error), ("nodes", node_id, "when")))
            return None

    def _leave_out_absent(self, node_id: NodeId, node: DraftNode, why: str) -> None:
        refs = [Ref(node_id, port) for port in node.ports()]
        self._absent.update(refs)
        self._known.update(dict.fromkeys(refs, Literal(None)))
        self.changes.append(Change(node_id, "dropped", why))

    def _fold(self, node_id: NodeId, node: DraftNode) -> bool:
        """Leaves the node out where its outputs are known."""
        given = node.inputs.get("value")
        if node.when is not None:
            return False
        if isinstance(node.spec, Value) and isinstance(given, Ref):
            self._known[Ref(node_id, "value")] = given
            self._waited[node_id] = (*node.after, *owners([given]))
            self.changes.append(Change(node_id, "left out", f"only passes on {given}"))
            return True
        outputs = None
        if node.spec.cheap and node.effect == "pure":
            try:
                outputs = _constant(node)
            except ClusterError as error:
                self.problems.append(Problem("bad-constant", error.message, ("nodes", node_id), on_key=True))
        if outputs is None:
            return False
        self._known.update({Ref(node_id, port): Literal(value) for port, value in outputs.items()})
        self._waited[node_id] = node.after
        self.changes.append(Change(node_id, "computed now", "its inputs are constants"))
        return True


def _constant(node: DraftNode) -> dict[str, object] | None:
    """What the node computes, where that is known and small."""
    values = {port: binding.value for port, binding in node.inputs.items() if isinstance(binding, Literal)}
    if len(values) < len(node.inputs):
        return None
    outputs = evaluator(node.spec)(values)
    small = all(len(value) <= MAX_CONSTANT_CHARS for value in outputs.values() if isinstance(value, str))
    return outputs if small else None


def _wanted(draft: Draft) -> set[str]:
    effects = [
        Ref(node_id, port)
        for node_id, node in draft.nodes.items()
        if node.effect == "effectful"
        for port in node.ports()
    ]
    refs = [ref for binding in draft.outputs.values() for ref in references(binding)]
    return reaching_outputs(draft.graph, [*refs, *effects])
