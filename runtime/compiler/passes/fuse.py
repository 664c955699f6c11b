"""Stage 5, fuse: cheap neighbours become one step.

Reason: a step costs a little to schedule, which for a cheap node is more than its work. Nothing may start
later for it, so a node joins only where nobody else waits: when all it needs is in the group, or when all
that need it are.

    hits ─► rows ─► ask ─► answer          hits ─► [rows, ask] ─► answer
                     ▲               ──►                ▲
    history ─────────┘                     history ─────┘

Functions with processes of their own are joined by the same rules: the chain that they are becomes a Ray
Compiled Graph, in which values go from process to process past the runner.

Inside bodies it is the same; a node with a body waits for it and so is never cheap.

Both rules keep a group convex (no path leaves it and comes back), so the steps stay free of cycles.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from typing import Literal

import networkx as nx
from msgspec.structs import replace

from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode, Scope, inside
from runtime.compiler.passes.prefix import Calls, shared, with_prefixes


def fuse(draft: Draft) -> Draft:
    """Sets the group of every cheap node that shares one: the name of the group's last node.

    Of model calls it sets the prefix (`prefix`).
    """
    changes: list[Change] = []
    fused = draft.becomes(_fused(draft, "", changes))
    calls: Calls = {}
    nodes = with_prefixes(fused, ChainMap(), "", calls)
    return fused.becomes(nodes, changes=(*changes, *shared(calls)))


def _fused(scope: Scope, path: str, changes: list[Change]) -> dict[NodeId, DraftNode]:
    """The nodes of a scope, and of those inside, with their groups."""
    order = list(nx.topological_sort(scope.graph))
    groups = _Groups(scope, order)
    for node_id in order:
        groups.join_what_it_needs(node_id)
    for node_id in reversed(order):
        groups.join_what_needs_it(node_id)
    names = groups.names(order)
    changes += [
        Change(path + node_id, f"runs with {name}", _why(scope.nodes[node_id]))
        for node_id, name in names.items()
        if node_id != name
    ]
    nodes = {}
    for node_id, node in scope.nodes.items():
        bodies = {
            key: dataclasses.replace(body, nodes=_fused(body, inside(path + node_id, key), changes))
            for key, body in node.bodies.items()
        }
        nodes[node_id] = replace(node, group=names.get(node_id), bodies=bodies)
    return nodes


class _Groups:
    """Disjoint sets of nodes."""

    def __init__(self, scope: Scope, order: list[NodeId]) -> None:
        self._graph = scope.graph
        self._sort = {node_id: _sort(scope.nodes[node_id]) for node_id in order}
        self._of = {node_id: node_id for node_id in order}
        self._members = {node_id: [node_id] for node_id in order}

    def join_what_it_needs(self, node_id: NodeId) -> None:
        """Into the group of all its sources: it is ready the moment that is done."""
        sources = {self._of[source] for source in self._graph.predecessors(node_id)}
        self._merge(node_id, sources)

    def join_what_needs_it(self, node_id: NodeId) -> None:
        """With its group, into the group of all their consumers: nobody gets anything later."""
        group = self._of[node_id]
        consumers = {
            self._of[consumer]
            for member in self._members[group]
            for consumer in self._graph.successors(member)
        }
        self._merge(group, consumers - {group})

    def names(self, order: list[NodeId]) -> dict[NodeId, NodeId]:
        """For every node of a group of several, the last node of it."""
        last = {self._of[node_id]: node_id for node_id in order}
        return {
            node_id: last[self._of[node_id]] for node_id in order if len(self._members[self._of[node_id]]) > 1
        }

    def _merge(self, group: NodeId, others: set[NodeId]) -> None:
        if len(others) != 1 or self._sort[group] is None:
            return
        (other,) = others
        if self._sort[other] != self._sort[group]:
            return
        small, large = sorted((group, other), key=lambda name: len(self._members[name]))
        for member in self._members.pop(small):
            self._of[member] = large
            self._members[large].append(member)


def _sort(node: DraftNode) -> Literal["cheap", "stage"] | None:
    """With whom it may be joined: a node of its own sort, computed whatever happens; None: with nobody."""
    if node.has_policies:
        return None
    if node.spec.own_process:
        return "stage" if node.when is None else None
    return "cheap" if node.spec.cheap else None


def _why(node: DraftNode) -> str:
    if node.spec.own_process:
        return "both have processes of their own, and nobody else waits"
    return "both are cheap, and nobody else waits"
