"""Names for what was recorded, and the frozen nodes that have them.

    b.scope.record(Value(), {"value": 1})             # → value
    b.scope.record(Value(), {"value": 2})             # → value2
    b.scope.record(Value(), {"value": 3}).named("c")  # → c

Nodes that nobody named get the name of their kind, and what is alone in a body that of the body. They get it
when all is recorded, so that no name clashes with one that is given later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from msgspec.structs import replace

from graphs.bindings import CONTEXT, INPUTS, RESERVED, Binding, Items, Literal, Record, Ref
from graphs.conditions import renamed
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.pipeline import Body, Node, NodeId
from graphs.recording import Reference, Root, Scope, Step, Wish
from graphs.sugar import EACH, STEP


class Names:
    """Names for everything that was recorded, none of them twice where both can be seen."""

    def __init__(self, root: Root) -> None:
        self._names = {root.given.key: INPUTS, root.conversation.key: CONTEXT}
        self._wanted = set(_given_names(root)) | RESERVED
        self._choose(root, frozenset(), None)

    def nodes(self, scope: Scope) -> dict[NodeId, Node]:
        """The nodes of a scope, by name."""
        return {NodeId(self._names[step._owner.key]): self._node(step) for step in scope.steps}

    def ref(self, reference: Reference) -> Ref:
        return Ref(self._names[reference.owner.key], reference.port)

    def _choose(self, scope: Scope, around: frozenset[str], base: str | None) -> None:
        """Names what a scope holds; `base` is what its only node is called, where nobody named it."""
        taken, numbers = set(around), defaultdict[str, int](int)
        if scope.local is not None:
            self._names[scope.local.key] = self._free(scope.local.label, taken, numbers)
            taken.add(self._names[scope.local.key])
        for step in scope.steps:
            wanted = base if base is not None and len(scope.steps) == 1 else step._spec.kind()
            self._names[step._owner.key] = step._name or self._free(wanted, taken, numbers)
            taken.add(self._names[step._owner.key])
        for step in scope.steps:
            for body in _traced(step):
                self._choose(body, frozenset(taken), EACH if isinstance(step._spec, Map) else STEP)

    def _free(self, base: str, taken: set[str], numbers: dict[str, int]) -> str:
        """The base, or the base with the first number that is free; `numbers` is how far each base is."""
        while True:
            numbers[base] += 1
            name = base if numbers[base] == 1 else f"{base}{numbers[base]}"
            if name not in taken and name not in self._wanted:
                return name

    def _node(self, step: Step) -> Node:
        spec = step._spec
        local = next((body.local for body in _traced(step) if body.local is not None), None)
        if isinstance(spec, Map | Loop) and local is not None:
            spec = replace(spec, as_=self._names[local.key])
        return Node(
            spec,
            {port: self._binding(binding) for port, binding in step._inputs.items()},
            tuple(NodeId(self._names[other._owner.key]) for other in step._after),
            self._condition(step._when),
            {key: self._body(body) for key, body in step._bodies.items()},
            **step._policies,
        )

    def _body(self, scope: Scope | Body) -> Body:
        if isinstance(scope, Body):
            return scope
        outputs = {name: self._binding(binding) for name, binding in scope.outputs.items()}
        return Body(self.nodes(scope), outputs, self._condition(scope.when), self._condition(scope.until))

    def _condition(self, wish: Wish | None) -> str | None:
        if wish is None:
            return None
        names = {
            name: self._names[meant] if isinstance(meant, str) else f"{self._names[meant.owner]}.{meant.port}"
            for name, meant in wish.names.items()
        }
        return renamed(wish.text, names)

    def _binding(self, binding: Binding) -> Binding:
        match binding:
            case Ref(owner=owner, port=port):
                return Ref(self._names[owner], port)
            case Items(items=items):
                return Items(tuple(map(self._binding, items)))
            case Record(fields=fields):
                return Record({name: self._binding(field) for name, field in fields.items()})
            case Literal():
                return binding


def _given_names(scope: Scope) -> Iterator[str]:
    yield from scope.names
    for step in scope.steps:
        for body in _traced(step):
            yield from _given_names(body)


def _traced(step: Step) -> list[Scope]:
    """The bodies of a node that were traced, and do not come from another pipeline."""
    return [body for body in step._bodies.values() if isinstance(body, Scope)]
