"""Part of stage 4: what is the same each time a body runs is computed once, before (loop-invariant code).

Reason: a map over eight items would else embed the same question eight times. A pure node moves out when
nothing that it takes belongs to the body, so that it gives the same each time.

    question, list ─► search (map)             question ─► search.vector ─► search (map)
      body: vector(question) ─► each    ──►    list ─────────────────────►    body: each

It must not run, and so not fail, where it would not have. So it moves out of
- a loop, which runs at least once, and a map over a list that is written down and not empty;
- a map over a list of plain values, on the condition that the list is not empty; it is no longer read while
  it is made then, as to compute once what is the same each time is the better part;
- the cases of a branch or router, where an equal node is in every one and one always applies;
- any map or loop, when it is of a kind that cannot fail (`value`). Over an empty list that is work for
  nothing, but microseconds.
And except for the last, not out of a node that may itself be skipped, nor out of one with a retry, a time
limit, a fallback or a cache, which are for what is inside. The tools of an agent stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from graphs.bindings import Literal, Ref
from graphs.conditions import MAX_ITEMS, Condition, Operand
from graphs.inference import Typed
from graphs.nodes.branch import Branch
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.router import Router
from graphs.nodes.value import Value
from graphs.pipeline import NodeId
from graphs.ports import ANY, PortType, whole
from runtime.compiler.absence import absent_in, may_be_skipped
from runtime.compiler.draft import (
    Change,
    Draft,
    DraftBody,
    DraftNode,
    Scope,
    inside,
    owners,
    rewired,
    rewired_body,
)
from runtime.compiler.fingerprint import Names, digest_of

PLAIN = frozenset({"string", "integer", "number", "boolean", "Document"})
"""Types of items of which a condition can look at a list, whatever they are."""

Types = Mapping[Ref, PortType]


def hoist(draft: Draft) -> Draft:
    """Moves invariant nodes out of bodies, through as many as they can."""
    changes: list[Change] = []
    nodes = _hoisted(draft, _Around(ChainMap(), draft.types, "", changes))
    return draft.becomes(nodes, changes=tuple(changes))


class _Around(NamedTuple):
    """What is known of the place where a scope is."""

    absent: ChainMap[Ref, None]
    """What may be absent."""
    types: Typed | None
    """None where it was not written like this."""
    path: str
    changes: list[Change]


def _hoisted(scope: Scope, around: _Around) -> dict[NodeId, DraftNode]:
    """The nodes of a scope, and in front of each those that moved out of it."""
    absent = absent_in(scope, around.absent)
    nodes: dict[NodeId, DraftNode] = {}
    for node_id in scope.sorted():
        node = scope.nodes[node_id]
        if node.bodies:
            node = _with_bodies_hoisted(node_id, node, around._replace(absent=absent))
            types = {} if around.types is None else around.types.refs
            moved, node = _moved(node_id, node, absent, types)
            nodes.update(moved)
            why = _WHY.get(node.spec.kind(), "")
            around.changes.extend(
                Change(around.path + name, f"moved out of {node_id}", why) for name in moved
            )
            guarded = {name: each for name, each in moved.items() if may_be_skipped(each, absent)}
            absent.update({Ref(name, port): None for name, each in guarded.items() for port in each.ports()})
        nodes[node_id] = node
    return nodes


_WHY = {
    "map": "the same for every item",
    "loop": "the same in every pass",
    "branch": "the same in every case, one of which always applies",
    "router": "the same for every choice",
}


def _with_bodies_hoisted(node_id: NodeId, node: DraftNode, around: _Around) -> DraftNode:
    bodies = {}
    for key, body in node.bodies.items():
        inner = around._replace(
            absent=ChainMap() if node.spec.closed else around.absent,
            types=around.types and around.types.bodies.get(node_id, {}).get(key),
            path=inside(around.path + node_id, key),
        )
        bodies[key] = dataclasses.replace(body, nodes=_hoisted(body, inner))
    return replace(node, bodies=bodies)


Moved = tuple[dict[NodeId, DraftNode], DraftNode]
"""The nodes that move out of a node, and what is left of it."""


def _moved(node_id: NodeId, node: DraftNode, absent: Container[Ref], types: Types) -> Moved:
    certain = not may_be_skipped(node, absent) and not node.has_policies
    if isinstance(node.spec, Map | Loop):
        return _out_of_passes(node_id, node, certain, types)
    always = isinstance(node.spec, Router) or (isinstance(node.spec, Branch) and node.spec.exhaustive)
    if certain and always and len(node.bodies) > 1:
        return _out_of_cases(node_id, node)
    return {}, node


def _out_of_passes(node_id: NodeId, node: DraftNode, certain: bool, types: Types) -> Moved:
    """What is invariant in the body of a map or loop."""
    ((key, body),) = node.bodies.items()
    sure, guard = certain, None
    if isinstance(node.spec, Map):
        over = node.inputs["over"]
        if isinstance(over, Ref):
            guard = _not_empty(node.spec, over, types)
        sure = certain and (guard is not None or not isinstance(over, Ref)) and over != Literal([])
    moving: dict[NodeId, DraftNode] = {}
    for name in _invariant(body, node.spec.locals(key, {})):
        inner = body.nodes[name]
        needs_moved = all(owner in moving for owner in owners(inner.bindings()) if owner in body.nodes)
        total = isinstance(inner.spec, Value) and inner.when is None
        if needs_moved and (total or (sure and (guard is None or inner.when is None))):
            moving[name] = inner if total else replace(inner, when=inner.when or guard)
    return _move(node_id, node, {key: {name: name for name in moving}}, key, moving)


def _out_of_cases(node_id: NodeId, node: DraftNode) -> Moved:
    """What is in every case alike."""
    around: dict[str, Any] = {owner: owner for owner in owners(node.bindings())}
    digests: dict[str, dict[str, NodeId]] = {}
    for key, body in node.bodies.items():
        names: Names = ChainMap({}, around)
        found: dict[str, NodeId] = {}
        for name in _invariant(body, node.spec.locals(key, {})):
            digest = digest_of(body.nodes[name], names)
            names[name] = digest
            found.setdefault(digest, name)
        digests[key] = found
    (first, found), *others = digests.items()
    shared = {digest: name for digest, name in found.items() if all(digest in each for _, each in others)}
    moving = {name: node.bodies[first].nodes[name] for name in shared.values()}
    instead = {key: {each[digest]: name for digest, name in shared.items()} for key, each in digests.items()}
    return _move(node_id, node, instead, first, moving)


def _invariant(body: DraftBody, own: Container[str]) -> Iterable[NodeId]:
    """The pure nodes of a body that take nothing that is of one run of it, each after those it takes from."""
    fixed: dict[NodeId, None] = {}
    for name in body.sorted():
        node = body.nodes[name]
        taken = owners(node.bindings())
        free = all(owner not in own and (owner in fixed or owner not in body.nodes) for owner in taken)
        if free and node.effect == "pure" and not node.after:
            fixed[name] = None
    return fixed


def _move(
    node_id: NodeId,
    node: DraftNode,
    instead: Mapping[str, Mapping[NodeId, NodeId]],
    key: str,
    moving: Mapping[NodeId, DraftNode],
) -> Moved:
    """Takes nodes out of bodies: `instead` has by body which of its nodes are which of `moving`."""
    if not moving:
        return {}, node
    named = {name: NodeId(inside(node_id, key) + name) for name in moving}
    bodies = dict(node.bodies)
    after = dict.fromkeys(node.after)
    for place, same in instead.items():
        body = bodies[place]
        by = {
            Ref(own, port): Ref(named[name], port)
            for own, name in same.items()
            for port in moving[name].ports()
        }
        kept = {name: each for name, each in body.nodes.items() if name not in same}
        after |= {named[same[other]]: None for each in kept.values() for other in each.after if other in same}
        left = {
            name: replace(each, after=tuple(other for other in each.after if other not in same))
            for name, each in kept.items()
        }
        bodies[place] = rewired_body(dataclasses.replace(body, nodes=left), by)
    by = {Ref(name, port): Ref(named[name], port) for name, each in moving.items() for port in each.ports()}
    fresh = {named[name]: rewired(each, by) for name, each in moving.items()}
    return fresh, replace(node, bodies=bodies, after=tuple(after))


def _not_empty(spec: Map, over: Ref, types: Types) -> Condition | None:
    """That a list has items; None where a condition may not be able to look at it."""
    port_type = whole(types.get(over, ANY))
    if port_type.name != "list" or port_type.item is None:
        return None
    plain = port_type.item.name in PLAIN and spec.max_items <= MAX_ITEMS
    return Condition("size ( _0 ) > 0", (Operand(over),)) if plain else None
