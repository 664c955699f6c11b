"""Stage 7, order: who goes first when two calls of a run meet in one queue.

Reason: a run is as long as its longest path, so what lies on that path must not wait behind what does not.
Each node gets the time from its start to the end of the run (the longest path from it); its slack is how much
later it could start without making the run longer, and its priority is that slack. The critical path has none
and keeps the run's own priority.

    plan 2 s ─► draft 6 s ─► join 1 s       critical path 9 s: plan, draft, join: priority 0
        └────► check 1 s ─────┘             check: slack 5 s: priority 50

A node with bodies takes as long as the longest path through them, as often as they are expected to run one
after the other. Inside a body times and slack are those of one run of the body.

Kelley and Walker, "Critical-path planning and scheduling" (1959).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import networkx as nx
from msgspec.structs import replace

from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode, Scope
from runtime.compiler.estimates import seconds

STEPS_PER_SECOND = 10
"""Resolution of priorities."""
MAX_PRIORITY = 1000


def order(draft: Draft) -> Draft:
    """Sets estimated durations and priorities, and puts the nodes in the order of their urgency."""
    ordered = draft.becomes(_ordered(draft))
    return ordered.becomes(changes=tuple(_changes(ordered)))


def _ordered(scope: Scope) -> dict[NodeId, DraftNode]:
    graph = scope.graph
    topological = list(nx.topological_sort(graph))
    timed = {node_id: _timed(scope.nodes[node_id]) for node_id in topological}
    before: dict[NodeId, float] = {}
    for node_id in topological:
        before[node_id] = max(
            (before[source] + timed[source].seconds for source in graph.pred[node_id]), default=0.0
        )
    remaining: dict[NodeId, float] = {}
    for node_id in reversed(topological):
        after = max((remaining[consumer] for consumer in graph.succ[node_id]), default=0.0)
        remaining[node_id] = timed[node_id].seconds + after
    whole = _length(remaining.values())
    nodes = {}
    for node_id in nx.lexicographical_topological_sort(graph, key=lambda name: (-remaining[name], name)):
        slack = whole - before[node_id] - remaining[node_id]
        priority = min(MAX_PRIORITY, round(slack * STEPS_PER_SECOND))
        nodes[node_id] = replace(timed[node_id], remaining_s=remaining[node_id], priority=priority)
    return nodes


def _timed(node: DraftNode) -> DraftNode:
    """The node with its duration, and all that is in its bodies in order."""
    bodies = {key: dataclasses.replace(body, nodes=_ordered(body)) for key, body in node.bodies.items()}
    lengths = {
        key: _length(inner.remaining_s for inner in body.nodes.values()) for key, body in bodies.items()
    }
    return replace(node, bodies=bodies, seconds=seconds(node, lengths))


def _length(remaining: Iterable[float]) -> float:
    return max(remaining, default=0.0)


def _changes(draft: Draft) -> Iterator[Change]:
    for path, node in draft.everything():
        if node.pool is not None or node.bodies:
            wait = node.priority / STEPS_PER_SECOND
            why = "on the critical path" if node.priority == 0 else f"can wait {wait:.1f} s"
            yield Change(path, f"priority {node.priority}", why)
