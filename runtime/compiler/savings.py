"""Which nodes may share their calls with other runs, which bodies may begin before they are chosen, and which
nodes before their conditions are known."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
from msgspec.structs import replace

from graphs.nodes.router import Router
from graphs.pipeline import NodeId, Policies
from runtime.compiler.draft import Change, DraftNode, Scope, inside, owners
from runtime.compiler.live import live_edges


def is_shared(node: DraftNode, policies: Policies) -> bool:
    """Whether equal calls of the node at the same time may be made once.

    They are where the answers would be equal: for pure nodes, and for those that ask a model in a way that
    repeats itself, unless their author says that answers may differ. What is quick is not worth it. A node
    with nodes inside it is shared through these.
    """
    if not policies.share or node.spec.holds_nodes or node.backend == "inline":
        return False
    return node.effect == "pure" or (node.effects is None and node.spec.repeatable)


def begun_early(scope: Scope, node_id: NodeId, policies: Policies) -> set[NodeId] | None:
    """The nodes beside it after which a node may begin while its condition is not known.

    None where it may not, or where nothing is gained: the condition is known as soon as the inputs are.
    """
    node = scope.nodes[node_id]
    awaited = node.backend in ("pool", "task") and node.effect != "effectful"
    if not policies.speculate or node.when is None or not awaited:
        return None
    if any(node_id in edge for edge in live_edges(scope)):
        return None
    needed = {*owners(replace(node, when=None).bindings()), *node.after} & scope.nodes.keys()
    graph = scope.graph
    before = needed.union(*(nx.ancestors(graph, each) for each in needed))
    later = nx.ancestors(graph, node_id) - before
    return needed if any(scope.nodes[each].backend != "inline" for each in later) else None


def begun_ahead(node: DraftNode, policies: Policies) -> tuple[str, ...]:
    """The bodies that may begin while the node has not chosen between them: those without side effects."""
    if not policies.speculate or not isinstance(node.spec, Router):
        return ()
    return tuple(
        key
        for key, body in node.bodies.items()
        if all(inner.effect != "effectful" for inner in body.nodes.values())
    )


def speculated(scope: Scope, path: str, policies: Policies) -> Iterator[Change]:
    """What is said of all that begins before it is known to be wanted."""
    for node_id, node in scope.nodes.items():
        if begun_early(scope, node_id, policies) is not None:
            yield Change(path + node_id, "begins before its condition is known", "it has no effects")
        if keys := begun_ahead(node, policies):
            yield Change(path + node_id, f"begins {', '.join(keys)} while it chooses", "they have no effects")
        for key, body in node.bodies.items():
            yield from speculated(body, inside(path + node_id, key), policies)
