"""Live edges: where a node reads what another gives while that is still made.

    draft.sentences ~► check (map over them)      check starts with draft: it takes nothing else of it
    draft.text      ─► check: inside it           then it waits for the end of draft

Reason: a search, a tool or a second model need not wait for the last word of the first. An edge is live where
the one makes a list that can be read in parts, and the other takes nothing of it but that, bound as it is to
an input that takes streams. What a body takes from around it counts as taken by the node that it is in; an
input of a subgraph is what its nodes make of it. A node with a cache waits for all that it is asked, to look
it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphs.bindings import INPUTS, Binding, Ref, references
from graphs.conditions import operands_of
from graphs.pipeline import NodeId
from graphs.ports import ANY, live
from runtime.compiler.draft import DraftBody, DraftNode, Scope

Edge = tuple[NodeId, NodeId]
"""Who makes, and who takes."""


def live_edges(scope: Scope) -> list[Edge]:
    """Those between the nodes of a scope."""
    made = {Ref(node_id, port) for node_id, node in scope.nodes.items() for port in _made_live(node)}
    edges: list[Edge] = []
    for node_id, node in scope.nodes.items():
        if not made:
            break
        parts: dict[str, bool] = dict.fromkeys(node.after, False)
        for ref, in_parts in _taken(node):
            parts[ref.owner] = parts.get(ref.owner, True) and in_parts and ref in made
        edges += [(NodeId(owner), node_id) for owner, each in parts.items() if each]
    return edges


def _made_live(node: DraftNode) -> Iterator[str]:
    bodies = {key: dict.fromkeys(body.outputs, ANY) for key, body in node.bodies.items()}
    return (port for port, port_type in node.spec.outputs({}, bodies).items() if live(port_type))


def _taken(node: DraftNode) -> Iterator[tuple[Ref, bool]]:
    """All that a node refers to around it, and whether it reads it while it is made."""
    ports = node.spec.inputs()
    for port, binding in node.inputs.items():
        in_parts = isinstance(binding, Ref) and (
            _read_inside(node, port) if node.spec.closed else live(ports[port].type)
        )
        yield from ((ref, in_parts and node.cache is None) for ref in references(binding))
    yield from _as_a_whole(operands_of(node.when))
    for key, body in node.bodies.items():
        yield from _as_a_whole(operands_of(body.when))
        inner = {*body.nodes, *node.spec.locals(key, {})}
        taken = ((ref, in_parts) for ref, in_parts in _taken_inside(body) if ref.owner not in inner)
        yield from ((ref, in_parts and node.cache is None) for ref, in_parts in taken)


def _taken_inside(body: DraftBody) -> Iterator[tuple[Ref, bool]]:
    for node in body.nodes.values():
        yield from _taken(node)
    yield from _as_a_whole(body.results())


def _read_inside(node: DraftNode, port: str) -> bool:
    """Whether all that a subgraph does with an input is to read it while it is made."""
    given = Ref(INPUTS, port)
    taken = (each for body in node.bodies.values() for each in _taken_inside(body))
    return all(in_parts for ref, in_parts in taken if ref == given)


def _as_a_whole(bindings: Iterable[Binding]) -> Iterator[tuple[Ref, bool]]:
    return ((ref, False) for binding in bindings for ref in references(binding))
