"""A draft as a picture: what a stage left, where it runs, what runs together, and the critical path."""

from __future__ import annotations

from graphs.bindings import references
from graphs.conditions import operands_of
from graphs.drawing.picture import NodeLook, Picture, assemble
from graphs.pipeline import NodeId
from runtime.compiler.draft import Draft, DraftNode


def picture_of_draft(draft: Draft) -> Picture:
    """The nodes as the last stage of the draft left them. After `order` the critical path is marked."""
    critical = _critical_path(draft)
    looks = {node_id: _look(node, node_id in critical) for node_id, node in draft.nodes.items()}
    return assemble(draft.pipeline, looks, draft.outputs, draft.types.refs)


def _look(node: DraftNode, critical: bool) -> NodeLook:
    lines = [f"pool {node.pool}"] if node.pool is not None else []
    if node.seconds >= 0.01:
        lines.append(f"about {node.seconds:.2g} s")
    return NodeLook(
        kind=node.spec.kind(),
        inputs=node.inputs.values(),
        looks_at=[ref for binding in operands_of(node.when) for ref in references(binding)],
        after=node.after,
        lines=tuple(lines),
        group=node.group,
        calls_model=any(use.resource == "model" for use in node.spec.uses()),
        critical=critical,
    )


def _critical_path(draft: Draft) -> set[NodeId]:
    """The longest way through the graph, as estimated; empty before `order`."""
    graph = draft.graph
    path: set[NodeId] = set()
    ready = [node_id for node_id in draft.nodes if not graph.pred[node_id]]
    while ready:
        node_id = max(ready, key=lambda each: draft.nodes[each].remaining_s)
        if draft.nodes[node_id].remaining_s == 0:
            break
        path.add(node_id)
        ready = list(graph.succ[node_id])
    return path
