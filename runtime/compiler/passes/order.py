"""Stage 7, order: who goes first when two calls of a run meet in one queue.

Reason: a run is as long as its longest path, so what lies on that path must not wait behind what does not.
Each node gets the time from its start to the end of the run (the longest path from it); its slack is how much
later it could start without making the run longer, and its priority is that slack. The critical path has none
and keeps the run's own priority.

    plan 2 s ─► draft 6 s ─► join 1 s       critical path 9 s: plan, draft, join: priority 0
        └────► check 1 s ─────┘             check: slack 5 s: priority 50

Kelley and Walker, "Critical-path planning and scheduling" (1959).
"""

from __future__ import annotations

import networkx as nx
from msgspec.structs import replace

from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft
from runtime.compiler.estimates import seconds

STEPS_PER_SECOND = 10
"""Resolution of priorities."""
MAX_PRIORITY = 1000


def order(draft: Draft) -> Draft:
    """Sets estimated durations and priorities, and puts the nodes in the order of their urgency."""
    graph = draft.graph
    topological = list(nx.topological_sort(graph))
    duration = {node_id: seconds(draft.nodes[node_id].spec) for node_id in topological}
    before: dict[NodeId, float] = {}
    for node_id in topological:
        before[node_id] = max(
            (before[source] + duration[source] for source in graph.pred[node_id]), default=0.0
        )
    remaining: dict[NodeId, float] = {}
    for node_id in reversed(topological):
        after = max((remaining[consumer] for consumer in graph.succ[node_id]), default=0.0)
        remaining[node_id] = duration[node_id] + after
    whole = max(remaining.values(), default=0.0)
    nodes = {}
    changes = []
    for node_id in nx.lexicographical_topological_sort(graph, key=lambda name: (-remaining[name], name)):
        slack = whole - before[node_id] - remaining[node_id]
        priority = min(MAX_PRIORITY, round(slack * STEPS_PER_SECOND))
        nodes[node_id] = replace(
            draft.nodes[node_id],
            seconds=duration[node_id],
            remaining_s=remaining[node_id],
            priority=priority,
        )
        if duration[node_id] > 0 and draft.nodes[node_id].pool is not None:
            why = "on the critical path" if priority == 0 else f"can wait {slack:.1f} s"
            changes.append(Change(node_id, f"priority {priority}", why))
    return draft.becomes(nodes, changes=tuple(changes))
