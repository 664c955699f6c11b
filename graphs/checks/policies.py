"""What can be wrong with how a node is treated: retries, its time limit, what takes its place."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from graphs.checks.scope import Scope
from graphs.errors import Path, Problem, nearest
from graphs.pipeline import Fallback, Node, NodeId
from graphs.ports import Port, faults

MAX_TIMEOUT_S = 3_600.0


def policy_problems(scope: Scope, path: Path, node_id: NodeId, node: Node) -> Iterator[Problem]:
    """Every problem of the policies of a node that stands at `path`."""
    if node.retry is not None and node.all_effects() == "effectful":
        hint = "write effects: idempotent beside it, if it may be run twice"
        message = "what is tried again happens again, and this node has effects"
        yield Problem("retry-effects", message, (*path, "retry"), on_key=True, hint=hint)
    if node.timeout_s is not None and not 0 < node.timeout_s <= MAX_TIMEOUT_S:
        message = f"a timeout is more than nothing and at most {MAX_TIMEOUT_S:.0f} s"
        yield Problem("bad-timeout", message, (*path, "timeout"))
    for index, fallback in enumerate(node.fallback):
        yield from _fallback(scope, (*path, "fallback", index), node_id, node, fallback)


def _fallback(scope: Scope, path: Path, node_id: NodeId, node: Node, fallback: Fallback) -> Iterator[Problem]:
    has_value = fallback.value is not UNSET
    if (fallback.model is not None) == has_value:
        said = "both" if has_value else "neither"
        message = f"a fallback is a model or a value, this is {said}"
        yield Problem("bad-fallback", message, path)
    elif fallback.model is not None:
        if not any(use.field == "model" for use in node.spec.uses()):
            message = f"the kind {node.kind} asks no model"
            yield Problem("bad-fallback", message, (*path, "model"), on_key=True)
    else:
        yield from _value(scope, (*path, "value"), node_id, node, fallback)


def _value(scope: Scope, path: Path, node_id: NodeId, node: Node, fallback: Fallback) -> Iterator[Problem]:
    types = scope.types.ports.get(node_id)
    if types is None:
        return
    outputs = node.spec.stand_in(fallback.value)
    if outputs is None:
        hint = "give a mapping of all outputs: " + ", ".join(types) if node.spec.holds_nodes else None
        message = f"this value cannot take the place of a node of kind {node.kind}"
        yield Problem("bad-fallback", message, path, hint=hint)
        return
    for name in types:
        if name not in outputs:
            yield Problem("bad-fallback", f"the output {name} is missing", path)
    for name, value in outputs.items():
        if name not in types:
            message = f"{node_id} has no output {name}"
            yield Problem("bad-fallback", message, path, hint=nearest(name, types))
            continue
        for message in faults(Port(types[name]), value):
            yield Problem("type-mismatch", f"{name}: {message}", path)
