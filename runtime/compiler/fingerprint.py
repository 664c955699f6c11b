"""Digests that say what a node computes, and a hash that says what a plan does, whatever things are called.

    a ─► b ─┐        digest(b) covers b's spec and digest(a); so b = c exactly when they compute the same
    a ─► c ─┴► d     thing. The hash of the plan numbers the nodes as they are met on the way from the
                     outputs back, so it also tells two uses of one node from one use each of two.

The digests are a Merkle tree over the graph. They alone cannot tell a sampling node used twice from two that
sample for themselves, hence the numbering. The nodes inside a node are numbered too, and what they know the
item of a map or the state of a loop by is replaced by how deep inside it is bound.
"""

from __future__ import annotations

import hashlib
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import networkx as nx

from graphs.bindings import RESERVED, Binding, Items, Literal, Record, Ref, references
from graphs.conditions import Condition, operands_of
from graphs.nodes.branch import Branch
from graphs.nodes.spec import NodeSpec
from graphs.pipeline import NodeId
from runtime.compiler.draft import DraftBody, DraftNode, Scope

Names = ChainMap[str, Any]
"""By owner of references: what stands for it, whatever it is called."""

_encode = msgspec.json.Encoder(order="sorted").encode


def digest_of(node: DraftNode, names: Names) -> str:
    """The digest of a node, from those of the nodes that it refers to."""
    return fingerprint(_node(node, names, 0, {}))


def digests_of(scope: Scope, around: Names) -> Names:
    """The digests of a scope's nodes, in front of what stands for those around it."""
    digests = around.new_child()
    for node_id in nx.topological_sort(scope.graph):
        digests[node_id] = digest_of(scope.nodes[node_id], digests)
    return digests


def names_inside(node: DraftNode, key: str, digest: str, around: Names) -> Names:
    """What stands for all that the nodes of a body see around them. `digest` is that of the node."""
    known: Names = ChainMap() if node.spec.closed else around
    return known.new_child(
        {owner: ["local", digest, place] for place, owner in enumerate(node.spec.locals(key, {}))}
    )


def structure(scope: Scope) -> list[Any]:
    """The nodes by number and the results, in a form that is equal for equal graphs."""
    return _structure(scope, ChainMap(), 0, {})


def number(scope: Scope) -> dict[NodeId, int]:
    """The nodes in the order in which they are met from the results back, whatever their names.

    Then come those that others come after, and last what is run for its effects only.
    """
    return _Numbering(scope, ChainMap(), 0, {}).numbers


def fingerprint(content: Any) -> str:
    """32 hexadecimal digits."""
    return hashlib.blake2b(_encode(content), digest_size=16).hexdigest()


Inside = dict[int, dict[NodeId, int]]
"""By identity of a body: the numbers of its nodes. Each is found once, on the way to the marks of the scope
around it, as finding it again from every scope around would double the work at each level."""


class _Numbering:
    def __init__(self, scope: Scope, around: Names, level: int, inside: Inside) -> None:
        self._scope = scope
        self._around = around
        self._level = level
        self._inside = inside
        self._order: list[NodeId] = []
        self._followed = 0
        self.numbers: dict[NodeId, int] = {}
        if any(node.bodies for node in scope.nodes.values()):
            _ = self.marks
        self._follow([ref.owner for binding in scope.results() for ref in _refs(binding)])
        self._follow_after()
        rest = [name for name, node in scope.nodes.items() if name not in self.numbers]
        for node_id in self._sorted([name for name in rest if scope.nodes[name].effect == "effectful"]):
            self._follow([node_id])
            self._follow_after()

    @cached_property
    def marks(self) -> Names:
        """Digests that also cover what a node comes after: an order of nodes that depends on no name."""
        marks = self._around.new_child()
        for node_id in nx.topological_sort(self._scope.graph):
            node = self._scope.nodes[node_id]
            after = sorted(marks[other] for other in node.after)
            marks[node_id] = fingerprint([_node(node, marks, self._level, self._inside), after])
        return marks

    def _sorted(self, nodes: Sequence[NodeId]) -> Sequence[NodeId]:
        return nodes if len(nodes) < 2 else sorted(nodes, key=self.marks.__getitem__)

    def _follow(self, owners: Sequence[str]) -> None:
        """Numbers all that `owners` lead back to by what flows."""
        stack = list(reversed(owners))
        while stack:
            node_id = NodeId(stack.pop())
            if node_id in self.numbers or node_id not in self._scope.nodes:
                continue
            self.numbers[node_id] = len(self.numbers)
            self._order.append(node_id)
            taken = [ref.owner for ref in _taken(self._scope.nodes[node_id], self._inside)]
            stack += reversed(taken)

    def _follow_after(self) -> None:
        """Numbers what the numbered nodes come after, in the order of the numbers."""
        while self._followed < len(self._order):
            for other in self._sorted(self._scope.nodes[self._order[self._followed]].after):
                self._follow([other])
            self._followed += 1


def _structure(scope: Scope, around: Names, level: int, inside: Inside) -> list[Any]:
    """As `structure`. A node with bodies is its mark, and the numbers of what it takes from around it."""
    numbering = _Numbering(scope, around, level, inside)
    numbers = numbering.numbers
    inside[id(scope)] = numbers
    names = around.new_child({node_id: [level, place] for node_id, place in numbers.items()})
    nodes = []
    for node_id in numbers:
        node = scope.nodes[node_id]
        if node.bodies:
            taken = [[names.get(ref.owner), ref.port] for ref in _taken(node, inside)]
            said = [numbering.marks[node_id], taken]
        else:
            said = _node(node, names, level, inside)
        nodes.append([said, sorted(numbers[other] for other in node.after)])
    until, defaults = (scope.until, scope.defaults) if isinstance(scope, DraftBody) else (None, {})
    return [nodes, _inputs(scope.outputs, names), _condition(until, names), defaults]


def _taken(node: DraftNode, inside: Inside) -> Iterator[Ref]:
    """What a node refers to around it, in an order that does not depend on names."""
    for port in sorted(node.inputs):
        yield from _refs(node.inputs[port])
    for binding in operands_of(node.when):
        yield from _refs(binding)
    for key in _keys(node):
        body = node.bodies[key]
        for binding in operands_of(body.when):
            yield from _refs(binding)
        inner = [ref for name in inside[id(body)] for ref in _taken(body.nodes[name], inside)]
        inner += [ref for binding in body.results() for ref in _refs(binding)]
        hidden = {*body.nodes, *node.spec.locals(key, {})}
        yield from (ref for ref in inner if ref.owner not in hidden)


def _node(node: DraftNode, names: Names, level: int, inside: Inside) -> list[Any]:
    return [
        _spec(node.spec),
        _inputs(node.inputs, names),
        _condition(node.when, names),
        _policies(node),
        [_body(node, key, names, level, inside) for key in _keys(node)],
    ]


def _body(node: DraftNode, key: str, names: Names, level: int, inside: Inside) -> list[Any]:
    body = node.bodies[key]
    known: Names = ChainMap() if node.spec.closed else names
    places = {owner: ["local", level, place] for place, owner in enumerate(node.spec.locals(key, {}))}
    title = "" if node.spec.kind() == Branch.kind() else key
    inner = _structure(body, known.new_child(places), level + 1, inside)
    return [title, _condition(body.when, names), inner]


def _keys(node: DraftNode) -> list[str]:
    """The keys of the bodies in an order that says no more than they do: the cases of a branch are tried in
    turn, whatever number each has left; all others are by name."""
    return list(node.bodies) if node.spec.kind() == Branch.kind() else sorted(node.bodies)


def _spec(spec: NodeSpec) -> Any:
    """The settings, but for what the author calls the item of a map or the state of a loop."""
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    fields.pop("as", None)
    return fields


def _policies(node: DraftNode) -> list[Any]:
    retry = None if node.retry is None else [node.retry.attempts, sorted(node.retry.on)]
    kept = [] if node.cache is None else [node.cache.ttl_s]
    return [retry, node.timeout_s, msgspec.to_builtins(node.fallback), node.effect, *kept]


def _inputs(inputs: Mapping[str, Binding], names: Names) -> dict[str, Any]:
    return {port: _canonical(binding, names) for port, binding in inputs.items()}


def _condition(condition: Condition | None, names: Names) -> Any:
    if condition is None:
        return None
    operands = ([_canonical(operand.binding, names), operand.cast] for operand in condition.operands)
    return [condition.text, *operands]


def _canonical(binding: Binding, names: Names) -> Any:
    match binding:
        case Literal(value=value):
            return ["literal", value]
        case Ref(owner=owner, port=port):
            return ["ref", names.get(owner, owner if owner in RESERVED else None), port]
        case Items(items=items):
            return ["items", [_canonical(item, names) for item in items]]
        case Record(fields=fields):
            return ["record", {name: _canonical(item, names) for name, item in fields.items()}]


def _refs(binding: Binding) -> Iterator[Ref]:
    """The references of a binding, the fields of records by name."""
    match binding:
        case Items(items=items):
            for item in items:
                yield from _refs(item)
        case Record(fields=fields):
            for name in sorted(fields):
                yield from _refs(fields[name])
        case _:
            yield from references(binding)
