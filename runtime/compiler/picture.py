"""A draft as a picture: what a stage left, where it runs, what runs together, and the critical path."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from graphs.bindings import references
from graphs.conditions import operands_of
from graphs.drawing.picture import NodeLook, Picture, ScopeLook, assemble, captured
from graphs.inference import Typed
from graphs.pipeline import NodeId
from runtime.compiler.colocation import colocated
from runtime.compiler.draft import Draft, DraftNode, Scope
from runtime.compiler.live import live_edges


def picture_of_draft(draft: Draft) -> Picture:
    """The nodes as the last stage of the draft left them. After `order` the critical path is marked."""
    near = {taker: maker for maker, taker in reversed(colocated(draft))}
    return assemble(draft.pipeline, _scope(draft, draft.types, (), near, hot=True))


def _scope(
    scope: Scope, types: Typed | None, own: tuple[str, ...], near: Mapping[str, str], *, hot: bool
) -> ScopeLook:
    """`near` says of which other pool a pool takes most; `hot`, whether the scope is on the critical path."""
    critical = _critical_path(scope) if hot else set()
    follows: dict[NodeId, set[NodeId]] = {}
    for maker, taker in live_edges(scope):
        follows.setdefault(taker, set()).add(maker)
    looks = {}
    for node_id, node in scope.nodes.items():
        written = {} if types is None else types.bodies.get(node_id, {})
        lengths = {key: _length(body) for key, body in node.bodies.items()}
        bodies = {}
        for key, body in node.bodies.items():
            longest = node_id in critical and lengths[key] == max(lengths.values())
            own_names = tuple(node.spec.locals(key, {}))
            bodies[key] = _scope(body, written.get(key), own_names, near, hot=longest)
        look = _look(node, bodies, near, critical=node_id in critical)
        looks[node_id] = replace(look, follows=follows.get(node_id, ()))
    return ScopeLook(looks, scope.outputs, {} if types is None else types.refs, own)


def _look(
    node: DraftNode, bodies: dict[str, ScopeLook], near: Mapping[str, str], *, critical: bool
) -> NodeLook:
    lines = []
    if node.pool is not None:
        lines.append(f"pool {node.pool}")
        if node.pool in near:
            lines.append(f"near {near[node.pool]}")
    if node.seconds >= 0.01:
        lines.append(f"about {node.seconds:.2g} s")
    conditions = [node.when, *(body.when for body in node.bodies.values())]
    return NodeLook(
        kind=node.spec.kind(),
        inputs=[*node.inputs.values(), *captured(bodies)],
        looks_at=[ref for each in conditions for binding in operands_of(each) for ref in references(binding)],
        after=node.after,
        lines=tuple(lines),
        group=node.group,
        calls_model=any(use.resource == "model" for use in node.spec.uses()),
        critical=critical,
        bodies=bodies,
    )


def _length(scope: Scope) -> float:
    return max((node.remaining_s for node in scope.nodes.values()), default=0.0)


def _critical_path(scope: Scope) -> set[NodeId]:
    """The longest way through a scope, as estimated; empty before `order`."""
    graph = scope.graph
    path: set[NodeId] = set()
    ready = [node_id for node_id in scope.nodes if not graph.pred[node_id]]
    while ready:
        node_id = max(ready, key=lambda each: scope.nodes[each].remaining_s)
        if scope.nodes[node_id].remaining_s == 0:
            break
        path.add(node_id)
        ready = list(graph.succ[node_id])
    return path
