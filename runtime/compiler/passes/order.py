"""Stage 7, order: who goes first when two calls of a run meet in one queue.

Reason: a run is as long as its longest path, so what lies on that path must not wait behind what does not.
Each node gets the time from its start to the end of the run (the longest path from it); its slack is how much
later it could start without making the run longer, and its priority is that slack. The critical path has none
and keeps the run's own priority.

    plan 2 s ─► draft 6 s ─► join 1 s       critical path 9 s: plan, draft, join: priority 0
        └────► check 1 s ─────┘             check: slack 5 s: priority 50

What reads a list while it is made (`live`) begins with its maker, and ends no earlier than that.

What a node takes is known where it has run before, and estimated where not (`estimates`). A node with bodies
takes as long as the longest path through them, as often as they are expected to run one after the other.
Inside a body times and slack are those of one run of the body.

Kelley and Walker, "Critical-path planning and scheduling" (1959).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import networkx as nx
from msgspec.structs import replace

from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode, Scope, inside
from runtime.compiler.estimates import seconds
from runtime.compiler.live import live_edges
from runtime.compiler.savings import speculated, with_ahead
from runtime.compiler.warming import warmed

STEPS_PER_SECOND = 10
"""Resolution of priorities."""
MAX_PRIORITY = 1000


def order(draft: Draft) -> Draft:
    """Sets estimated durations and priorities, and puts the nodes in the order of their urgency."""
    graph = draft.pipeline.metadata.name
    measured = {} if draft.catalog is None else draft.catalog.timings.get(graph, {})
    policies = draft.pipeline.policies
    timed = draft.becomes(_ordered(draft, "", measured))
    ordered = timed.becomes(with_ahead(timed, policies))
    nodes, read_ahead = warmed(ordered, measured)
    ahead = speculated(ordered, "", policies)
    return ordered.becomes(nodes, changes=(*_changes(ordered, measured), *ahead, *read_ahead))


def _ordered(scope: Scope, path: str, measured: Mapping[str, float]) -> dict[NodeId, DraftNode]:
    """`measured` are seconds by path, `path` what those of this scope begin with."""
    graph = scope.graph
    topological = list(nx.topological_sort(graph))
    timed = {node_id: _timed(scope.nodes[node_id], path + node_id, measured) for node_id in topological}
    before, remaining = _times(graph, {node_id: node.seconds for node_id, node in timed.items()}, scope)
    whole = _length(remaining.values())
    nodes = {}
    for node_id in nx.lexicographical_topological_sort(graph, key=lambda name: (-remaining[name], name)):
        slack = whole - before[node_id] - remaining[node_id]
        priority = min(MAX_PRIORITY, round(slack * STEPS_PER_SECOND))
        nodes[node_id] = replace(timed[node_id], remaining_s=remaining[node_id], priority=priority)
    return nodes


def _times(
    graph: nx.DiGraph[NodeId], taken: Mapping[NodeId, float], scope: Scope
) -> tuple[dict[NodeId, float], dict[NodeId, float]]:
    """Seconds before the earliest start of each node, and from there to the end of the run."""
    live = set(live_edges(scope))
    before: dict[NodeId, float] = {}
    ends: dict[NodeId, float] = {}
    for node_id, own in taken.items():
        makers = [maker for maker in graph.pred[node_id] if (maker, node_id) in live]
        waited = [ends[source] for source in graph.pred[node_id] if (source, node_id) not in live]
        before[node_id] = max([*waited, *(before[maker] for maker in makers)], default=0.0)
        ends[node_id] = max(before[node_id] + own, *(ends[maker] for maker in makers), 0.0)
    after: dict[NodeId, float] = {}
    remaining: dict[NodeId, float] = {}
    for node_id in reversed(list(taken)):
        takers = [taker for taker in graph.succ[node_id] if (node_id, taker) in live]
        later = [remaining[taker] for taker in graph.succ[node_id] if (node_id, taker) not in live]
        after[node_id] = max([*later, *(after[taker] for taker in takers)], default=0.0)
        beside = (remaining[taker] for taker in takers)
        remaining[node_id] = max(taken[node_id] + after[node_id], *beside, 0.0)
    return before, remaining


def _timed(node: DraftNode, path: str, measured: Mapping[str, float]) -> DraftNode:
    """The node with its duration, and all that is in its bodies in order."""
    bodies = {
        key: dataclasses.replace(body, nodes=_ordered(body, inside(path, key), measured))
        for key, body in node.bodies.items()
    }
    lengths = {
        key: _length(inner.remaining_s for inner in body.nodes.values()) for key, body in bodies.items()
    }
    return replace(node, bodies=bodies, seconds=measured.get(path) or seconds(node, lengths))


def _length(remaining: Iterable[float]) -> float:
    return max(remaining, default=0.0)


def _begun_together(scope: Scope, path: str) -> Iterator[Change]:
    for maker, taker in live_edges(scope):
        yield Change(path + taker, f"begins with {maker}", "reads what that gives while it is made")
    for node_id, node in scope.nodes.items():
        for key, body in node.bodies.items():
            yield from _begun_together(body, inside(path + node_id, key))


def _changes(draft: Draft, measured: Mapping[str, float]) -> Iterator[Change]:
    yield from _begun_together(draft, "")
    for path, node in draft.everything():
        if node.pool is not None or node.bodies:
            wait = node.priority / STEPS_PER_SECOND
            why = "on the critical path" if node.priority == 0 else f"can wait {wait:.1f} s"
            taken = f"; took {node.seconds:.2f} s" if path in measured else ""
            yield Change(path, f"priority {node.priority}", why + taken)
