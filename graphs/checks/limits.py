"""How large a pipeline is, the nodes inside nodes included: asked before anything else is looked at.

A pipeline of a few lines can stand for very many nodes, by using graphs that use graphs, or for very many
runs of one, by lists of lists of lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphs.errors import Path, Problem
from graphs.pipeline import MAX_BODY_DEPTH, MAX_NODES, Node, NodeId, Pipeline

MAX_FAN_OUT = 100_000
"""Most runs of one node in one run of the pipeline, as its maps, loops and agents are bounded."""


class _Size(NamedTuple):
    nodes: int
    depth: int


def limit_problems(pipeline: Pipeline) -> list[Problem]:
    """Empty where the pipeline is small enough to be looked at closely."""
    size = _Sizes().of(pipeline.nodes)
    if size.nodes > MAX_NODES:
        return [Problem("too-large", f"more than {MAX_NODES} nodes, those inside nodes included", ("nodes",))]
    if size.depth > MAX_BODY_DEPTH:
        return list(_deepest(pipeline.nodes))
    return list(_fan_out(pipeline.nodes, (), 1))


class _Sizes:
    """Each body is measured once, however often it is used."""

    def __init__(self) -> None:
        self._known: dict[int, _Size] = {}

    def of(self, nodes: Mapping[NodeId, Node], depth: int = 0) -> _Size:
        if depth > MAX_BODY_DEPTH:
            return _Size(0, 0)
        known = self._known.get(id(nodes))
        if known is None:
            inner = [
                self.of(body.nodes, depth + 1) for node in nodes.values() for body in node.bodies.values()
            ]
            deepest = 1 + max((size.depth for size in inner), default=-1)
            known = self._known[id(nodes)] = _Size(len(nodes) + sum(size.nodes for size in inner), deepest)
        return known


def _deepest(nodes: Mapping[NodeId, Node], path: Path = (), depth: int = 0) -> Iterator[Problem]:
    """One problem for each body that is too deep."""
    for node_id, node in nodes.items():
        for key, body in node.bodies.items():
            place = (*path, "nodes", node_id, *node.spec.place(key))
            if depth == MAX_BODY_DEPTH:
                message = f"nodes are nested at most {MAX_BODY_DEPTH} deep"
                yield Problem("too-large", message, place, on_key=True)
            else:
                yield from _deepest(body.nodes, place, depth + 1)


def _fan_out(nodes: Mapping[NodeId, Node], path: Path, runs: int) -> Iterator[Problem]:
    """One problem for each node that multiplies beyond the limit."""
    for node_id, node in nodes.items():
        inner = runs * node.spec.most_visits
        place = (*path, "nodes", node_id)
        if inner > MAX_FAN_OUT:
            hint = "lower max_items, max_iterations or max_steps, here or around it"
            message = f"its nodes could run {inner} times in one run, more than {MAX_FAN_OUT}"
            yield Problem("too-large", message, place, on_key=True, hint=hint)
            continue
        for key, body in node.bodies.items():
            yield from _fan_out(body.nodes, (*place, *node.spec.place(key)), inner)
