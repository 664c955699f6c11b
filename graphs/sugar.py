"""Bodies of one node, which are written without `nodes` and `outputs`: what the node is called then.

    search: {map: {over: …}, retrieve: {…}, with: {…}}    reads as a body with the one node `each`
    - {when: …, llm: {…}, with: {…}}                      reads as a body with the one node `step`

Every output of the node is an output of the body. Nobody refers to the node, so any name would do; but it
must not be one that can be seen where the body stands, or references to that would mean the node itself.
"""

from __future__ import annotations

from collections.abc import Container

from graphs.bindings import Ref
from graphs.pipeline import Body, Node, NodeId

EACH = "each"
"""What the one node of a map is called."""
STEP = "step"
"""What the one node of any other body is called."""


class Names:
    """The names that can be seen somewhere: some of its own, and those around it."""

    def __init__(self, own: Container[str] = (), around: Names | None = None) -> None:
        self._own = own
        self._around = around

    def __contains__(self, name: object) -> bool:
        names: Names | None = self
        while names is not None:
            if name in names._own:
                return True
            names = names._around
        return False


def single_name(base: str, seen: Names) -> NodeId:
    """`base`, or where that is taken the first of `base2`, `base3`, … that is free."""
    name, number = base, 1
    while name in seen:
        number += 1
        name = f"{base}{number}"
    return NodeId(name)


def single(name: NodeId, node: Node) -> Body:
    """The body of one node."""
    return Body({name: node}, {port: Ref(name, port) for port in node.ports()})


def only_node(body: Body, base: str, seen: Names) -> Node | None:
    """The node of a body that is as `single` makes them; None of any other."""
    name = single_name(base, seen)
    if list(body.nodes) != [name] or body.defaults:
        return None
    node = body.nodes[name]
    plain = node.when is None and not node.after
    return node if plain and body.outputs == single(name, node).outputs else None
