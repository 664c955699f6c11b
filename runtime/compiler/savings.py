"""Which nodes may share their calls with other runs, and which bodies may begin before they are chosen."""

from __future__ import annotations

from graphs.nodes.router import Router
from graphs.pipeline import Policies
from runtime.compiler.draft import DraftNode


def is_shared(node: DraftNode, policies: Policies) -> bool:
    """Whether equal calls of the node at the same time may be made once.

    They are where the answers would be equal: for pure nodes, and for those that ask a model in a way that
    repeats itself, unless their author says that answers may differ. What is quick is not worth it. A node
    with nodes inside it is shared through these.
    """
    if not policies.share or node.spec.holds_nodes or node.backend == "inline":
        return False
    return node.effect == "pure" or (node.effects is None and node.spec.repeatable)


def begun_ahead(node: DraftNode, policies: Policies) -> tuple[str, ...]:
    """The bodies that may begin while the node has not chosen between them: those without side effects."""
    if not policies.speculate or not isinstance(node.spec, Router):
        return ()
    return tuple(
        key
        for key, body in node.bodies.items()
        if all(inner.effect != "effectful" for inner in body.nodes.values())
    )
