"""Stage 6, assign: every node gets the place where it runs.

Reason: the executor then asks no questions. A node that calls a model awaits that model's pool; one that
awaits something else, as a server or the nodes inside it, is a task; a function with a process of its own is
a stage of a compiled graph; all others are quick and local, and are computed in the runner on the spot.

    embed ─► find ─► search (map) ─► ask ─► answer       embed: pool minilm, find: inline, search: task,
                                                         ask: inline, answer: pool smollm2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from msgspec.structs import replace

from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode
from runtime.executor.kinds.registry import runs_inline
from runtime.plan import Backend


def assign(draft: Draft) -> Draft:
    """Sets back end and pool."""
    placed = draft.becomes(_placed(draft.nodes))
    return placed.becomes(changes=tuple(Change(path, *_place(node)) for path, node in placed.everything()))


def _placed(nodes: Mapping[NodeId, DraftNode]) -> dict[NodeId, DraftNode]:
    return {node_id: _assigned(node) for node_id, node in nodes.items()}


def _assigned(node: DraftNode) -> DraftNode:
    bodies = {key: dataclasses.replace(body, nodes=_placed(body.nodes)) for key, body in node.bodies.items()}
    model = next((use.name for use in node.spec.uses() if use.resource == "model"), None)
    awaited: Backend = "task" if bodies or model is None else "pool"
    if node.spec.own_process and not node.has_policies:
        awaited = "compiled"
    inline = runs_inline(node.spec) and not node.has_policies
    return replace(node, backend="inline" if inline else awaited, pool=model, bodies=bodies)


def _place(node: DraftNode) -> tuple[str, str]:
    """What is said of it, and why."""
    if node.bodies:
        return "task", "awaits the nodes inside it"
    if node.pool is not None:
        return f"pool {node.pool}", "calls this model; meets other runs in its batches"
    if node.backend == "inline":
        return "inline", "needs no model"
    if node.backend == "compiled":
        return "compiled", "has a process of its own"
    if node.spec.batched:
        return "task", "meets what other runs ask of it in its batches"
    return "task", "its policies may await" if runs_inline(node.spec) else "awaits what is no model"
