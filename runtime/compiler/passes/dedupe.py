"""Stage 4, dedupe: what would be computed twice is computed once (common sub-expression elimination).

Reason: a model call saved is seconds saved. Two pure nodes are one when they and all that flows into them are
the same, which their digests say, and they come after the same nodes; a node that samples stays on its own.
A node in a body that equals one around it is that one. What is the same in every pass of a body moves out of
it (`hoist`), and may then equal something there.

    question ─► embed_a ─► search_a ─► …         question ─► embed_a ─► search_a ─► …
            └─► embed_b ─► search_b ─► …   ──►                      └─► search_b ─► …
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace as replace_body
from typing import NamedTuple

from msgspec.structs import replace

from graphs.bindings import Binding, Ref
from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode, Scope, inside, rewired, substitute, substituted
from runtime.compiler.fingerprint import Names, digest_of
from runtime.compiler.passes.hoist import hoist

Key = tuple[str, frozenset[NodeId]]
"""What a pure node computes, and what it comes after."""


def dedupe(draft: Draft) -> Draft:
    """Of equal pure nodes the one written first stays, and one around another before one inside."""
    first = _merge(draft)
    moved = hoist(first)
    if not moved.changes:
        return first
    last = _merge(moved)
    return last.becomes(changes=(*first.changes, *moved.changes, *last.changes))


def _merge(draft: Draft) -> Draft:
    changes: list[Change] = []
    known = _Known(ChainMap(), ChainMap(), ChainMap())
    nodes = _merged(draft, known, "", changes)
    outputs = {name: substitute(binding, known.instead) for name, binding in draft.outputs.items()}
    return draft.becomes(nodes, outputs, tuple(changes))


class _Known(NamedTuple):
    """What is known in a scope of its nodes and of those around it."""

    instead: ChainMap[Ref, Binding]
    """What stands in for the outputs of nodes that are gone."""
    first: ChainMap[Key, NodeId]
    """Which of equal nodes stays."""
    names: Names
    """The digests of pure nodes. What samples stands for itself."""

    def inside(self, node: DraftNode, key: str, path: str) -> _Known:
        """What is known in a body of a node."""
        around = _Known(ChainMap(), ChainMap(), ChainMap()) if node.spec.closed else self
        places = {owner: ["local", path, place] for place, owner in enumerate(node.spec.locals(key, {}))}
        return _Known(
            around.instead.new_child(), around.first.new_child(), around.names.new_child(dict(places))
        )


def _merged(scope: Scope, known: _Known, path: str, changes: list[Change]) -> dict[NodeId, DraftNode]:
    """The nodes of a scope that stay. Those inside them come last, when all around them are known."""
    merged: dict[NodeId, NodeId] = {}
    nodes: dict[NodeId, DraftNode] = {}
    for node_id in scope.sorted():
        node = rewired(scope.nodes[node_id], known.instead)
        after = tuple(dict.fromkeys(merged.get(other, other) for other in node.after))
        node = replace(node, after=tuple(other for other in after if other in scope.nodes))
        pure = node.effect == "pure"
        key = digest_of(node, known.names), frozenset(after)
        if pure and (same := known.first.get(key)) is not None:
            merged[node_id] = same
            known.instead.update({Ref(node_id, port): Ref(same, port) for port in node.ports()})
            changes.append(Change(path + node_id, f"is {same}", "the same computation on the same inputs"))
            continue
        known.names[node_id] = key[0] if pure else ["own", path + node_id]
        if pure:
            known.first[key] = node_id
        nodes[node_id] = node
    return {
        node_id: _inside(node_id, nodes[node_id], known, path, changes)
        for node_id in scope.nodes
        if node_id in nodes
    }


def _inside(node_id: NodeId, node: DraftNode, known: _Known, path: str, changes: list[Change]) -> DraftNode:
    """The node, with the nodes inside it merged."""
    bodies = {}
    for key, body in node.bodies.items():
        begin = inside(path + node_id, key)
        inner = known.inside(node, key, begin)
        nodes = _merged(body, inner, begin, changes)
        bodies[key] = replace_body(
            body,
            nodes=nodes,
            outputs={name: substitute(binding, inner.instead) for name, binding in body.outputs.items()},
            until=substituted(body.until, inner.instead),
        )
    return replace(node, bodies=bodies) if bodies else node
