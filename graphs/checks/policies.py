"""What can be wrong with how a node is treated: retries, its time limit, what takes its place."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from graphs.checks.scope import Scope
from graphs.errors import Path, Problem, nearest
from graphs.nodes.approval import Approval
from graphs.pipeline import Cache, Fallback, Node, NodeId, cache_of
from graphs.ports import Port, faults

MAX_TIMEOUT_S = 3_600.0
MAX_TTL_S = 7 * 24 * 3_600.0


def policy_problems(scope: Scope, path: Path, node_id: NodeId, node: Node) -> Iterator[Problem]:
    """Every problem of the policies of a node that stands at `path`."""
    if node.retry is not None and node.all_effects() == "effectful":
        hint = "write effects: idempotent beside it, if it may be run twice"
        message = "what is tried again happens again, and this node has effects"
        yield Problem("retry-effects", message, (*path, "retry"), on_key=True, hint=hint)
    if node.timeout_s is not None and not 0 < node.timeout_s <= MAX_TIMEOUT_S:
        message = f"a timeout is more than nothing and at most {MAX_TIMEOUT_S:.0f} s"
        yield Problem("bad-timeout", message, (*path, "timeout"))
    if node.cache is not None:
        yield from cache_problems((*path, "cache"), node.cache)
        yield from _cached(path, node)
    for index, fallback in enumerate(node.fallback):
        yield from _fallback(scope, (*path, "fallback", index), node_id, node, fallback)


def cache_problems(path: Path, cache: Cache) -> Iterator[Problem]:
    """What is wrong with a cache that stands at `path`."""
    if not 0 < cache.ttl_s <= MAX_TTL_S:
        message = f"a ttl is more than nothing and at most {MAX_TTL_S / 3600:.0f} h"
        yield Problem("bad-cache", message, (*path, "ttl"))


def _cached(path: Path, node: Node) -> Iterator[Problem]:
    if _asks_people(node):
        message = "what a person says is asked each time"
        yield Problem("bad-cache", message, (*path, "cache"), on_key=True)
    elif node.all_effects() == "effectful":
        hint = "write effects: idempotent beside it, if leaving it out does no harm"
        message = "what is cached does not happen, and this node has effects"
        yield Problem("bad-cache", message, (*path, "cache"), on_key=True, hint=hint)


def _asks_people(node: Node) -> bool:
    """Whether it, or a node inside it, waits for a person."""
    inner = (each for body in node.bodies.values() for each in body.nodes.values())
    return node.kind == Approval.kind() or any(map(_asks_people, inner))


def _fallback(scope: Scope, path: Path, node_id: NodeId, node: Node, fallback: Fallback) -> Iterator[Problem]:
    said = [fallback.model is not None, fallback.value is not UNSET, fallback.cached]
    if sum(said) != 1:
        told = "several" if any(said) else "none"
        message = f"a fallback is a model, a value, or cached: true; this is {told}"
        yield Problem("bad-fallback", message, path)
    elif fallback.cached:
        if cache_of(node.cache, node.spec, node.all_effects(), scope.pipeline.policies) is None:
            hint = "write cache: {ttl: 10m} beside it"
            message = "nothing is kept of this node that could take its place"
            yield Problem("bad-fallback", message, (*path, "cached"), on_key=True, hint=hint)
    elif fallback.model is not None:
        if not any(use.field == "model" for use in node.spec.uses()):
            message = f"the kind {node.kind} asks no model"
            yield Problem("bad-fallback", message, (*path, "model"), on_key=True)
    else:
        yield from _value(scope, (*path, "value"), node_id, node, fallback)


def _value(scope: Scope, path: Path, node_id: NodeId, node: Node, fallback: Fallback) -> Iterator[Problem]:
    made = scope.types.ports.get(node_id)
    if made is None:
        return
    types = {name: port_type for name, port_type in made.items() if name not in node.spec.derived}
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
