"""Part of stage 3: the nodes of a body that always runs, exactly once, join those around it.

Reason: among them they can be merged and fused, and nothing is scheduled twice. Such a body is that of a case
that always applies, or of a subgraph. Every name gets that of the node in front, so that it stays unique.

    inputs ─► rag: subgraph ─► text              inputs ─► rag.ask ─► rag.answer ─► text
                └ body: ask ─► answer     ──►

Left as it is: a node with a condition or a policy, which hold for all that is inside; a body that gives what
may be absent, as outside it would be absent and not null; one that gives lists or records, which would be
copied to all who take them; and a subgraph with a name that can be seen around it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from graphs.bindings import Binding, Literal, Ref
from graphs.nodes.branch import Branch
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import NodeId
from runtime.compiler.absence import absent_in
from runtime.compiler.draft import DraftBody, DraftNode, inside, owners, rewired, substitute


class Inlined(NamedTuple):
    """What takes the place of a node."""

    nodes: Mapping[NodeId, DraftNode]
    """In topological order."""
    outputs: Mapping[str, Binding]
    defaults: Mapping[str, Any]
    """By name of an output: its value where it is absent."""


def inlined(
    node_id: NodeId, node: DraftNode, absent: ChainMap[Ref, None], visible: Container[str]
) -> Inlined | None:
    """The nodes of the one body of a node, for around it; None where it has to stay inside."""
    if not isinstance(node.spec, Branch | Subgraph) or len(node.bodies) != 1:
        return None
    ((key, body),) = node.bodies.items()
    plain = node.when is None and node.effects is None and not node.has_policies and body.when is None
    if not plain or not _gives_plain_values(body, absent):
        return None
    by: dict[Ref, Binding] = {}
    if node.spec.closed:
        if any(not isinstance(given, Ref | Literal) or given in absent for given in node.inputs.values()):
            return None
        if any(name in visible for name in _names_deep_inside(body)):
            return None
        by = {Ref("inputs", port): given for port, given in node.inputs.items()}
    begin = inside(node_id, key)
    named = {name: NodeId(begin + name) for name in body.nodes}
    for name, inner in body.nodes.items():
        by.update({Ref(name, port): Ref(named[name], port) for port in inner.ports()})
    waits = (*node.after, *(owners(node.bindings()) if node.effect == "effectful" else ()))
    nodes = {}
    for name in body.sorted():
        after = tuple(named[other] for other in body.nodes[name].after) if body.graph.pred[name] else waits
        nodes[named[name]] = replace(rewired(body.nodes[name], by), after=after)
    outputs = {name: substitute(binding, by) for name, binding in body.outputs.items()}
    return Inlined(nodes, outputs, body.defaults)


def _gives_plain_values(body: DraftBody, absent: ChainMap[Ref, None]) -> bool:
    inside_absent = absent_in(body, absent)
    return all(
        isinstance(binding, Literal) or (isinstance(binding, Ref) and binding not in inside_absent)
        for binding in body.outputs.values()
    )


def _names_deep_inside(body: DraftBody) -> Iterator[str]:
    """The names in the bodies inside a body."""
    for node in body.nodes.values():
        for key, inner in node.bodies.items():
            yield from (*inner.nodes, *node.spec.locals(key, {}))
            yield from _names_deep_inside(inner)
