"""Which nodes may share their calls with other runs, which bodies may begin before they are chosen, and which
nodes before their conditions are known."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace as replace_body

import networkx as nx
from msgspec.structs import replace

from graphs.conditions import operands_of
from graphs.nodes.branch import Branch
from graphs.nodes.router import Router
from graphs.pipeline import NodeId, Policies
from runtime.compiler.draft import Change, DraftBody, DraftNode, Scope, inside, owners
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
    later = nx.ancestors(scope.graph, node_id) - _made_by(scope, needed)
    return needed if any(scope.nodes[each].backend != "inline" for each in later) else None


def with_ahead(scope: Scope, policies: Policies) -> dict[NodeId, DraftNode]:
    """The nodes of a scope, and of those inside, with the bodies that may begin before one is chosen.

    They are those without side effects. What a router chooses between begins with the router; a case of a
    branch may begin before the branch does (`_cases_ahead`).
    """
    nodes = dict(scope.nodes)
    if not policies.speculate:
        return nodes
    reads_live = {node_id for edge in live_edges(scope) for node_id in edge}
    for node_id, node in nodes.items():
        bodies = {
            key: replace_body(body, nodes=with_ahead(body, policies)) for key, body in node.bodies.items()
        }
        ahead: dict[str, tuple[NodeId, ...]] = {}
        if isinstance(node.spec, Router):
            ahead = {key: () for key, body in bodies.items() if _is_harmless(body)}
        elif isinstance(node.spec, Branch) and node.cache is None and node_id not in reads_live:
            ahead = dict(_cases_ahead(scope, node))
        nodes[node_id] = replace(node, bodies=bodies, ahead=ahead)
    return nodes


def _cases_ahead(scope: Scope, node: DraftNode) -> Iterator[tuple[str, tuple[NodeId, ...]]]:
    """The cases of a branch that may begin before it is known which one applies, and the nodes beside it
    after which each may.

    A case waits for all that it takes, and for what the branch comes `after`. It has to call something, and
    something has to be awaited still that the branch's own condition looks at, or one that is asked before
    the case or is its own: otherwise nothing is gained.
    """
    looked_at = set(owners(operands_of(node.when)))
    for key, body in node.bodies.items():
        looked_at |= set(owners(operands_of(body.when)))
        if not _is_harmless(body) or all(inner.backend == "inline" for inner in body.nodes.values()):
            continue
        taken = {NodeId(ref.owner) for ref in body.references()} - body.nodes.keys()
        needed = (taken | set(node.after)) & scope.nodes.keys()
        later = _made_by(scope, looked_at & scope.nodes.keys()) - _made_by(scope, needed)
        if any(scope.nodes[each].backend != "inline" for each in later):
            yield key, tuple(sorted(needed))


def _is_harmless(body: DraftBody) -> bool:
    return all(inner.effect != "effectful" for inner in body.nodes.values())


def _made_by(scope: Scope, nodes: Set[NodeId]) -> set[NodeId]:
    """The nodes, and all that come before them."""
    return set(nodes).union(*(nx.ancestors(scope.graph, each) for each in nodes))


def speculated(scope: Scope, path: str, policies: Policies) -> Iterator[Change]:
    """What is said of all that begins before it is known to be wanted."""
    for node_id, node in scope.nodes.items():
        if begun_early(scope, node_id, policies) is not None:
            yield Change(path + node_id, "begins before its condition is known", "it has no effects")
        if node.ahead:
            when = "while it chooses" if isinstance(node.spec, Router) else "before its conditions are known"
            yield Change(path + node_id, f"begins {', '.join(node.ahead)} {when}", "they have no effects")
        for key, body in node.bodies.items():
            yield from speculated(body, inside(path + node_id, key), policies)
