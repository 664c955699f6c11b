"""The types of all that can be referred to, in a pipeline and in the bodies inside it.

    inputs, context ─► nodes in topological order ─┬► their ports ─► outputs
                                                   └► bodies: locals and all that is around ─► what they give

Never fails: what cannot be known, as the ports of nodes on a cycle, is left out.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import networkx as nx

from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref
from graphs.nodes.spec import BodyTypes
from graphs.pipeline import CONTEXT_FIELDS, Body, Node, NodeId, Pipeline
from graphs.ports import ANY, Field, PortType, common, list_of, optional, record_of, type_of


class Typed(NamedTuple):
    """The types of the values of a pipeline or of a body."""

    refs: Mapping[Ref, PortType]
    """Of all that can be referred to, where it is there."""
    absent: Container[Ref]
    """Of these what may be absent."""
    outputs: Mapping[str, PortType]
    """By name of an output, absence and defaults taken into account."""
    ports: Mapping[NodeId, Mapping[str, PortType]]
    """Of its own nodes, in topological order. Nodes on or behind a cycle are left out."""
    bodies: Mapping[NodeId, Mapping[str, Typed]]
    """Of the nodes that have bodies: the same of each body."""


def typed(pipeline: Pipeline) -> Typed:
    """The types of a pipeline, whether or not it is right."""
    refs = {Ref(INPUTS, name): port.type for name, port in pipeline.inputs.items()} | {
        Ref(CONTEXT, name): CONTEXT_FIELDS[name] for name in pipeline.context.reads if name in CONTEXT_FIELDS
    }
    result = _infer(pipeline.nodes, ChainMap({}, refs), ChainMap({}))
    outputs = {name: _output_type(pipeline, name, ref, result.refs) for name, ref in pipeline.outputs.items()}
    return result._replace(outputs=outputs)


def dependencies(nodes: Mapping[NodeId, Node]) -> nx.DiGraph[str]:
    """The nodes, with an edge from each to those that refer to it or come after it."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    for node_id, node in nodes.items():
        for ref in node.references():
            if ref.owner in nodes:
                graph.add_edge(ref.owner, node_id)
        graph.add_edges_from((other, node_id) for other in node.after if other in nodes)
    return graph


def reaching_outputs(graph: nx.DiGraph[Any], outputs: Iterable[Ref]) -> set[str]:
    """The nodes that `outputs` refer to, and all that these need."""
    wanted: set[str] = set()
    stack = [ref.owner for ref in outputs if ref.owner in graph]
    while stack:
        node_id = stack.pop()
        if node_id not in wanted:
            wanted.add(node_id)
            stack.extend(graph.predecessors(node_id))
    return wanted


def may_be_skipped(node: Node, absent: Container[Ref]) -> bool:
    """Whether a node may be skipped: for its condition, or for an input that it needs and may be absent."""
    if node.when is not None:
        return True
    if not any(isinstance(binding, Ref) and binding in absent for binding in node.inputs.values()):
        return False
    ports = node.spec.inputs()
    return any(
        isinstance(binding, Ref) and binding in absent and name in ports and ports[name].required
        for name, binding in node.inputs.items()
    )


def binding_type(
    binding: Binding, types: Mapping[Ref, PortType], absent: Container[Ref] = frozenset()
) -> PortType | None:
    """The type of a binding, None where a reference of it has no known type.

    What is absent is `null` inside a list or a record; on its own it is no value, so its type is that of its
    presence.
    """
    match binding:
        case Literal(value=value):
            return type_of(value)
        case Ref():
            return types.get(binding)
        case Items(items=items):
            return list_of(common(_part_type(item, types, absent) for item in items))
        case Record(fields=fields):
            return record_of(Field(name, _part_type(part, types, absent)) for name, part in fields.items())


def _part_type(part: Binding, types: Mapping[Ref, PortType], absent: Container[Ref]) -> PortType:
    """The type of what stands inside a list or a record."""
    port_type = binding_type(part, types, absent) or ANY
    may_be_null = isinstance(part, Ref) and part in absent and port_type != ANY
    return optional(port_type) if may_be_null else port_type


def given_types(node: Node, types: Mapping[Ref, PortType], absent: Container[Ref]) -> dict[str, PortType]:
    """The types that are bound to the inputs of a node, where known."""
    given = {port: binding_type(binding, types, absent) for port, binding in node.inputs.items()}
    return {port: port_type for port, port_type in given.items() if port_type is not None}


def _infer(nodes: Mapping[NodeId, Node], refs: ChainMap[Ref, PortType], absent: ChainMap[Ref, None]) -> Typed:
    """The types of some nodes, from those of what is around them; both maps are added to at their front."""
    graph = dependencies(nodes)
    ports: dict[NodeId, Mapping[str, PortType]] = {}
    bodies: dict[NodeId, Mapping[str, Typed]] = {}
    waiting = dict(graph.in_degree())
    ready = [node_id for node_id, count in waiting.items() if count == 0]
    while ready:
        node_id = NodeId(ready.pop())
        node = nodes[node_id]
        given = given_types(node, refs, absent)
        inner = {key: _body(node, key, body, given, refs, absent) for key, body in node.bodies.items()}
        if inner:
            bodies[node_id] = inner
        ports[node_id] = node.spec.outputs(given, {key: each.outputs for key, each in inner.items()})
        fresh = {Ref(node_id, port): port_type for port, port_type in ports[node_id].items()}
        refs.update(fresh)
        if may_be_skipped(node, absent):
            absent.update(dict.fromkeys(fresh))
        for successor in graph.successors(node_id):
            waiting[successor] -= 1
            if waiting[successor] == 0:
                ready.append(successor)
    return Typed(refs, absent, {}, ports, bodies)


def _body(
    node: Node,
    key: str,
    body: Body,
    given: Mapping[str, PortType],
    refs: ChainMap[Ref, PortType],
    absent: ChainMap[Ref, None],
) -> Typed:
    own = _local_types(node.spec.locals(key, given))
    if node.spec.closed:
        read = {ref: port_type for ref, port_type in refs.maps[-1].items() if ref.owner == CONTEXT}
        result = _infer(body.nodes, ChainMap({}, own, read), ChainMap({}))
    else:
        result = _infer(body.nodes, ChainMap({}, own, *refs.maps), ChainMap({}, *absent.maps))
    return result._replace(outputs={name: _given_type(body, name, result) for name in body.outputs})


def _local_types(own: BodyTypes) -> dict[Ref, PortType]:
    return {Ref(owner, port): port_type for owner, ports in own.items() for port, port_type in ports.items()}


def _given_type(body: Body, name: str, types: Typed) -> PortType:
    """The type of what a body gives; optional where it may be absent and has no default."""
    binding = body.outputs[name]
    port_type = binding_type(binding, types.refs, types.absent) or ANY
    may_be_null = isinstance(binding, Ref) and binding in types.absent and body.defaults.get(name) is None
    return optional(port_type) if may_be_null and port_type.name not in ("any", "optional") else port_type


def _output_type(pipeline: Pipeline, name: str, ref: Ref, refs: Mapping[Ref, PortType]) -> PortType:
    port_type = refs.get(ref, ANY)
    is_optional = name in pipeline.defaults and pipeline.defaults[name] is None
    return optional(port_type) if is_optional and port_type.name not in ("any", "optional") else port_type
