"""Which values may be absent: the outputs of nodes that may be skipped."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container

from graphs.bindings import Ref
from runtime.compiler.draft import DraftNode, Scope


def may_be_skipped(node: DraftNode, absent: Container[Ref]) -> bool:
    """Whether a node may be skipped: for its condition, or for an input that it needs and may be absent."""
    if node.when is not None:
        return True
    taken = [port for port, given in node.inputs.items() if isinstance(given, Ref) and given in absent]
    if not taken:
        return False
    ports = node.spec.inputs()
    return any(ports[port].required for port in taken)


def absent_in(scope: Scope, around: ChainMap[Ref, None]) -> ChainMap[Ref, None]:
    """What may be absent of all that the nodes of a scope see, from what may be absent around it."""
    absent = around.new_child()
    for node_id in scope.sorted():
        node = scope.nodes[node_id]
        if may_be_skipped(node, absent):
            absent.update({Ref(node_id, port): None for port in node.ports()})
    return absent
