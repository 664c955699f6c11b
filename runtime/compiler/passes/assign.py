"""Stage 6, assign: every node gets the place where it runs.

Reason: the executor then asks no questions. A node that uses a model awaits that model's pool; everything
else is quick and local, and is computed in the runner on the spot.

    embed ─► search ─► ask ─► answer    embed: pool minilm, search: inline, ask: inline, answer: pool smollm2
"""

from __future__ import annotations

from msgspec.structs import replace

from runtime.compiler.draft import Change, Draft, DraftNode


def assign(draft: Draft) -> Draft:
    """Sets back end and pool."""
    nodes = {node_id: _placed(node) for node_id, node in draft.nodes.items()}
    changes = tuple(
        Change(node_id, f"pool {node.pool}", "calls this model; meets other runs in its batches")
        if node.pool is not None
        else Change(node_id, "inline", "needs no model")
        for node_id, node in nodes.items()
    )
    return draft.becomes(nodes, changes=changes)


def _placed(node: DraftNode) -> DraftNode:
    model = next((use.name for use in node.spec.uses() if use.resource == "model"), None)
    return replace(node, backend="inline" if model is None else "pool", pool=model)
