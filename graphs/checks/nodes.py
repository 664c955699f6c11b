"""What can be wrong with the nodes of a pipeline or of a body, each on its own and all together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import networkx as nx

from graphs.bindings import Ref, references
from graphs.checks.bodies import body_problems, given_by, inner_scopes
from graphs.checks.policies import policy_problems
from graphs.checks.scope import Scope
from graphs.errors import Path, Problem, nearest
from graphs.inference import dependencies, reaching_outputs
from graphs.pipeline import Node, NodeId, name_fault
from graphs.ports import Port
from graphs.reading.base import Loose

MAX_EXPANSION = 1_000
"""Values that one value can hold, through however many others."""
MAX_VALUE_DEPTH = 32


def binding_place(node: Node, port: str) -> Path:
    """Where in the YAML of a node the binding of a port stands."""
    if node.spec.shorthand == port:
        return (node.kind,)
    return (node.kind, port) if port in node.spec.among_settings else ("with", port)


def node_problems(scope: Scope, outputs: Iterable[Ref], loose: Sequence[Loose]) -> Iterator[Problem]:
    """Every problem of the nodes of a scope and of those inside them.

    `outputs` is what is wanted of them; `loose` are the references of nodes that could not be read.
    """
    for body, path, ref in loose:
        if body == scope.path:
            yield from scope.reference(path, ref)
    for node_id, node in scope.nodes.items():
        yield from _node(scope, node_id, node, loose)
    graph = dependencies(scope.nodes)
    yield from _cycles(scope, graph)
    yield from _expansion(scope)
    if scope.all_read:
        yield from _unused(scope, graph, outputs)


def _node(scope: Scope, node_id: NodeId, node: Node, loose: Sequence[Loose]) -> Iterator[Problem]:
    path: Path = (*scope.path, "nodes", node_id)
    if fault := name_fault(node_id):
        yield Problem("bad-name", fault, path, on_key=True)
    elif scope.shadows(node_id):
        hint = "names inside a node differ from all that can be seen there"
        yield Problem("shadowed", f"there is a {node_id} around this already", path, on_key=True, hint=hint)
    broken = False
    for flaw in node.spec.faults():
        broken = True
        yield Problem(
            flaw.code,
            flaw.message,
            (*path, node.kind, flaw.field, *flaw.inside),
            flaw.on_key,
            line_in_text=flaw.line_in_text,
            token=flaw.token,
            hint=flaw.hint,
        )
    ports = node.spec.inputs()
    for name, binding in node.inputs.items():
        where = (*path, *binding_place(node, name))
        if name in ports:
            yield from scope.edge(where, ports[name], binding)
        elif ports or not broken:
            message = f"{node_id} has no input {name}, being of kind {node.kind}"
            yield Problem("unknown-port", message, where, on_key=True, hint=nearest(name, ports))
        yield from scope.binding(where, binding)
    yield from _after(scope, path, node)
    if node.when is not None:
        yield from scope.condition((*path, "when"), node.when)
    yield from policy_problems(scope, path, node_id, node)
    if node_id not in scope.complained:
        yield from _missing(path, node_id, node, ports)
    yield from body_problems(scope, path, node_id, node)
    for body, inner in inner_scopes(scope, path, node_id, node):
        yield from node_problems(inner, given_by(body), loose)


def _after(scope: Scope, path: Path, node: Node) -> Iterator[Problem]:
    for index, other in enumerate(node.after):
        place = (*path, "after", index)
        if other in node.after[:index]:
            yield Problem("duplicate", f"{other} is named twice", place)
        elif other not in scope.nodes and other not in scope.complained:
            hint = nearest(other, scope.nodes)
            yield Problem("unknown-node", f"there is no node {other}", place, hint=hint)


def _missing(path: Path, node_id: NodeId, node: Node, ports: Mapping[str, Port]) -> Iterator[Problem]:
    lines = node.spec.variables()
    for name, port in ports.items():
        if not port.required or name in node.inputs:
            continue
        near = nearest(name, set(node.inputs) - set(ports))
        if name in lines:
            field, line = lines[name]
            yield Problem(
                "missing-input",
                f"nothing is given for the variable {name}",
                (*path, node.kind, field),
                line_in_text=line,
                token=name,
                hint=near or f"give it in with: {name}",
            )
        else:
            message = f"{node_id} needs its input {name}, a {port.type}"
            yield Problem("missing-input", message, path, on_key=True, hint=near)


def _cycles(scope: Scope, graph: nx.DiGraph[str]) -> Iterator[Problem]:
    """One problem for each knot of nodes that wait for each other, showing one way round."""
    for knot in nx.strongly_connected_components(graph):
        some = min(knot)
        if len(knot) == 1 and not graph.has_edge(some, some):
            continue
        edges = nx.find_cycle(graph.subgraph(knot), some)
        path = " → ".join([edge[0] for edge in edges] + [edges[0][0]])
        place = (*scope.path, "nodes", edges[0][0])
        yield Problem("cycle", f"nodes wait for each other: {path}", place, on_key=True)


def _expansion(scope: Scope) -> Iterator[Problem]:
    """Values that hold values that hold values: how many and how deep, before any is made."""
    size: dict[str, int] = {}
    depth: dict[str, int] = {}
    for node_id in scope.types.ports:  # in topological order
        node = scope.nodes[node_id]
        if node.spec.shorthand is None:
            continue
        refs = [ref.owner for binding in node.inputs.values() for ref in references(binding)]
        size[node_id] = 1 + sum(size.get(owner, 1) for owner in refs)
        depth[node_id] = 1 + max((depth.get(owner, 0) for owner in refs), default=0)
        if size[node_id] > MAX_EXPANSION or depth[node_id] > MAX_VALUE_DEPTH:
            message = f"{node_id} holds too many values, or values nested too deep"
            yield Problem("too-large", message, (*scope.path, "nodes", node_id), on_key=True)
            return


def _unused(scope: Scope, graph: nx.DiGraph[str], outputs: Iterable[Ref]) -> Iterator[Problem]:
    """Warnings: what could be left out. What has effects is run for them."""
    effectful = [
        Ref(node_id, "") for node_id, node in scope.nodes.items() if node.all_effects() == "effectful"
    ]
    wanted = reaching_outputs(graph, [*outputs, *effectful])
    for node_id in scope.nodes:
        if node_id not in wanted:
            message = f"{node_id} reaches no output and is never run"
            place = (*scope.path, "nodes", node_id)
            yield Problem("unused-node", message, place, on_key=True, severity="warning")
