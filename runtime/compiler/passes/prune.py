"""Stage 3, prune: nothing is run whose result is known already, or is not wanted.

Reason: the cheapest node is the one that is not there. What is constant is computed once, now, by the very
code that would run it; a value that only passes another on is left out; a node whose condition never holds,
or that needs one of these, is dropped; so is what reaches no output and has no effects. Of a branch the cases
that never apply are dropped, and what always runs in a body of its own joins what is around it (`inline`).

    role = "brief" ─► ask ─► answer ─► text         ask' ─► answer ─► text
    spare                                     ──►
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from cluster.errors import ClusterError
from graphs.bindings import Binding, Literal, Ref, references
from graphs.conditions import Condition, ConditionError, operands_of, predicate_of
from graphs.errors import PipelineError, Problem
from graphs.inference import reaching_outputs
from graphs.nodes.branch import Branch
from graphs.nodes.map import Map
from graphs.nodes.value import Value
from graphs.pipeline import NodeId
from graphs.ports import live
from runtime.compiler.absence import may_be_skipped
from runtime.compiler.draft import (
    Change,
    Draft,
    DraftBody,
    DraftNode,
    Scope,
    inside,
    owners,
    substitute,
    substituted,
)
from runtime.compiler.passes.inline import inlined
from runtime.executor.kinds.registry import evaluator

MAX_CONSTANT_CHARS = 65_536
"""Length of a computed text above which it is left to the run."""


def prune(draft: Draft) -> Draft:
    """Raises `PipelineError` for a constant that cannot be computed."""
    folder = _Folder(draft, _Known.nothing(), "")
    outputs = {
        name: folder.given(binding, draft.pipeline.defaults.get(name))
        for name, binding in draft.outputs.items()
    }
    if folder.problems:
        raise PipelineError(folder.problems)
    nodes = folder.wanted(outputs.values())
    return draft.becomes(nodes, outputs, tuple(folder.changes))


class _Known(NamedTuple):
    """What is known in a scope, of its nodes and of those around it."""

    instead: ChainMap[Ref, Binding]
    """What stands in for the outputs of the nodes that were left out; null for what is absent."""
    absent: ChainMap[Ref, None]
    """What is always absent."""
    maybe: ChainMap[Ref, None]
    """What may be absent."""
    names: ChainMap[str, None]
    """The nodes that can be seen."""

    @classmethod
    def nothing(cls) -> _Known:
        return cls(ChainMap(), ChainMap(), ChainMap(), ChainMap())

    def inside(self) -> _Known:
        """To be added to in a body."""
        instead, absent, maybe, names = self
        return _Known(instead.new_child(), absent.new_child(), maybe.new_child(), names.new_child())


class _Folder:
    """Leaves out the nodes of a scope whose outputs are constants, other nodes' values, or always absent."""

    def __init__(self, scope: Scope, known: _Known, path: str) -> None:
        self._known = known
        self._path = path
        self._waited: dict[NodeId, tuple[NodeId, ...]] = {}
        """What the nodes that were left out had waited for."""
        self._inlined: dict[NodeId, tuple[NodeId, ...]] = {}
        """The nodes that took the place of others."""
        self.nodes: dict[NodeId, DraftNode] = {}
        self.changes: list[Change] = []
        self.problems: list[Problem] = []
        known.names.update(dict.fromkeys(scope.nodes))
        for node_id in scope.sorted():
            self._take(node_id, scope.nodes[node_id])

    def given(self, binding: Binding, default: Any) -> Binding:
        """What a scope gives, with what is known put in."""
        if isinstance(binding, Ref) and binding in self._known.absent:
            return Literal(default)
        return substitute(binding, self._known.instead)

    def wanted(self, results: Iterable[Binding]) -> dict[NodeId, DraftNode]:
        """The nodes that are needed for `results`, and those with effects."""
        scope = Scope(nodes=self.nodes, outputs={})
        effects = [Ref(name, "") for name, node in self.nodes.items() if node.effect == "effectful"]
        refs = [ref for binding in results for ref in references(binding)]
        kept = reaching_outputs(scope.graph, [*refs, *effects])
        self.changes += [
            Change(self._path + name, "dropped", "reaches no output")
            for name in self.nodes
            if name not in kept
        ]
        return {name: node for name, node in self.nodes.items() if name in kept}

    def _take(self, node_id: NodeId, node: DraftNode) -> None:
        """Keeps a node or leaves it out. All that it refers to was taken before."""
        inputs, missing = self._inputs(node)
        after = self._after(node, inputs)
        when = substituted(node.when, self._known.instead)
        holds = self._holds(node_id, when)
        if missing is not None or holds is False:
            why = "its condition never holds" if missing is None else f"its input {missing} is always absent"
            self._leave_out_absent(node_id, node, why)
            self._waited[node_id] = (*after, *owners(inputs.values()))
            return
        fresh = replace(node, inputs=inputs, after=after, when=None if holds else when)
        # One that may be skipped keeps its cases: what they never give is null if it runs, else absent.
        if isinstance(node.spec, Branch) and fresh.when is None:
            fresh = self._cases(node_id, fresh)
        if self._fold(node_id, fresh) or self._inline(node_id, fresh):
            return
        fresh = replace(fresh, bodies=self._bodies(node_id, fresh)) if fresh.bodies else fresh
        self.nodes[node_id] = fresh
        if may_be_skipped(fresh, self._known.maybe):
            self._known.maybe.update({Ref(node_id, port): None for port in node.ports()})

    def _bodies(self, node_id: NodeId, node: DraftNode) -> dict[str, DraftBody]:
        """The bodies of a node, with what is known put in."""
        bodies = {}
        for key, body in node.bodies.items():
            known = _Known.nothing() if node.spec.closed else self._known.inside()
            known.names.update(dict.fromkeys(node.spec.locals(key, {})))
            folder = _Folder(body, known, inside(self._path + node_id, key))
            until = substituted(body.until, known.instead)
            outputs = {
                name: folder.given(binding, body.defaults.get(name)) for name, binding in body.outputs.items()
            }
            nodes = folder.wanted([*outputs.values(), *operands_of(until)])
            when = substituted(body.when, self._known.instead)
            bodies[key] = dataclasses.replace(body, nodes=nodes, outputs=outputs, when=when, until=until)
            self.changes += folder.changes
        return bodies

    def _cases(self, node_id: NodeId, node: DraftNode) -> DraftNode:
        """A branch without the cases that never apply, or are never come to."""
        left: dict[str, DraftBody] = {}
        always = False
        for key, body in node.bodies.items():
            when = substituted(body.when, self._known.instead)
            holds = True if when is None else self._applies(when)
            path = inside(self._path + node_id, key).removesuffix(".")
            if always:
                self.changes.append(Change(path, "dropped", "a case before it always applies"))
            elif holds is False:
                self.changes.append(Change(path, "dropped", "its condition never holds"))
            else:
                left[key] = dataclasses.replace(body, when=None if holds else when)
                always = holds is True
        fresh = replace(node, bodies=left, spec=Branch(exhaustive=always))
        ports = fresh.ports()
        gone = {Ref(node_id, port): Literal(None) for port in node.ports() if port not in ports}
        self._known.instead.update(gone)
        return fresh

    def _inline(self, node_id: NodeId, node: DraftNode) -> bool:
        """Puts the nodes of a body that always runs in place of the node that it is in."""
        found = inlined(node_id, node, self._known.maybe, self._known.names)
        if found is None:
            return False
        self.changes.append(Change(self._path + node_id, "inlined", "the nodes inside it run exactly once"))
        self._known.names.update(dict.fromkeys(found.nodes))
        for name, inner in found.nodes.items():
            self._take(name, inner)
        self._known.instead.update(
            {
                Ref(node_id, name): self.given(binding, found.defaults.get(name))
                for name, binding in found.outputs.items()
            }
        )
        kept = {name: None for inner in found.nodes for name in self._instead_of(inner)}
        self._inlined[node_id] = tuple(kept)
        self._waited[node_id] = tuple(
            name for name in kept if name in self.nodes and self.nodes[name].effect == "effectful"
        )
        return True

    def _instead_of(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """What to wait for where a node was named."""
        return self._inlined.get(node_id) or self._waited.get(node_id, (node_id,))

    def _inputs(self, node: DraftNode) -> tuple[dict[str, Binding], str | None]:
        """The inputs with what is known put in, and the name of one that is needed and always absent."""
        ports = node.spec.inputs()
        inputs: dict[str, Binding] = {}
        missing: str | None = None
        for name, binding in node.inputs.items():
            inputs[name] = substitute(binding, self._known.instead)
            if isinstance(binding, Ref) and binding in self._known.absent:
                if ports[name].required:
                    missing = name
                elif ports[name].type.name != "optional":
                    inputs[name] = Literal(ports[name].default)
        return inputs, missing

    def _after(self, node: DraftNode, inputs: Mapping[str, Binding]) -> tuple[NodeId, ...]:
        """What the node comes after, now that others are gone: who came after them comes after what they
        waited for."""
        named = {kept: None for other in node.after for kept in self._instead_of(other)}
        through = {kept: None for owner in owners(node.bindings()) for kept in self._waited.get(owner, ())}
        ports = node.spec.inputs()
        taken = owners(given for port, given in inputs.items() if not live(ports[port].type))
        waits = {**named, **through}
        return tuple(other for other in waits if other in self.nodes and other not in taken)

    def _holds(self, node_id: NodeId, when: Condition | None) -> bool | None:
        """Whether a condition holds, where that is known now."""
        if when is None:
            return None
        try:
            return _constant_truth(when)
        except ConditionError as error:
            self._complain(node_id, Problem("bad-constant", str(error), ("nodes", node_id, "when")))
            return None

    def _applies(self, when: Condition) -> bool | None:
        """As `_holds`, of a case: it may never be come to, so what is wrong with it is left to the run."""
        try:
            return _constant_truth(when)
        except ConditionError:
            return None

    def _complain(self, node_id: NodeId, problem: Problem) -> None:
        """Of what would fail in every run. What is in a body may never be come to, and is left to the run."""
        if not self._path and "." not in node_id:
            self.problems.append(problem)

    def _leave_out_absent(self, node_id: NodeId, node: DraftNode, why: str) -> None:
        refs = [Ref(node_id, port) for port in node.ports()]
        self._known.absent.update(dict.fromkeys(refs))
        self._known.instead.update(dict.fromkeys(refs, Literal(None)))
        self.changes.append(Change(self._path + node_id, "dropped", why))

    def _fold(self, node_id: NodeId, node: DraftNode) -> bool:
        """Leaves the node out where its outputs are known."""
        given = node.inputs.get("value")
        if node.when is not None:
            return False
        if isinstance(node.spec, Value) and isinstance(given, Ref) and node.effect == "pure":
            self._known.instead[Ref(node_id, "value")] = given
            self._waited[node_id] = (*node.after, *owners([given]))
            self.changes.append(Change(self._path + node_id, "left out", f"only passes on {given}"))
            return True
        outputs, why = self._outputs(node_id, node)
        if outputs is None:
            return False
        self._known.instead.update({Ref(node_id, port): Literal(value) for port, value in outputs.items()})
        self._waited[node_id] = node.after
        self.changes.append(Change(self._path + node_id, "computed now", why))
        return True

    def _outputs(self, node_id: NodeId, node: DraftNode) -> tuple[Mapping[str, object] | None, str]:
        """What the node gives, where that is known, and why it is."""
        if isinstance(node.spec, Branch) and not node.bodies:
            return {}, "none of its cases ever applies"
        if isinstance(node.spec, Map):
            return _of_nothing(node.spec, node), "there is nothing to run over"
        if not node.spec.cheap or node.effect != "pure":
            return None, ""
        try:
            return _constant(node), "its inputs are constants"
        except ClusterError as error:
            if not node.fallback:
                problem = Problem("bad-constant", error.message, ("nodes", node_id), on_key=True)
                self._complain(node_id, problem)
            return None, ""


_EMPTY: Mapping[str, object] = {"collect": [], "flatten": [], "join": ""}
"""What reducers that always give something make of nothing."""


def _of_nothing(spec: Map, node: DraftNode) -> dict[str, object] | None:
    """What a map over a constant empty list gives."""
    if node.inputs["over"] != Literal([]):
        return None
    reducers = {port: spec.reduce.get(port, "collect") for port in node.ports()}
    known = all(reducer in _EMPTY for reducer in reducers.values())
    return {port: _EMPTY[reducer] for port, reducer in reducers.items()} if known else None


def _constant_truth(when: Condition) -> bool | None:
    """Whether a condition holds, where all that it looks at is constant. Raises `ConditionError`."""
    values = [each.binding.value for each in when.operands if isinstance(each.binding, Literal)]
    return predicate_of(when)(values) if len(values) == len(when.operands) else None


def _constant(node: DraftNode) -> dict[str, object] | None:
    """What the node computes, where that is known and small. Raises `ClusterError`."""
    values = {port: binding.value for port, binding in node.inputs.items() if isinstance(binding, Literal)}
    if len(values) < len(node.inputs):
        return None
    outputs = evaluator(node.spec)(values)
    small = all(len(value) <= MAX_CONSTANT_CHARS for value in outputs.values() if isinstance(value, str))
    return outputs if small else None
