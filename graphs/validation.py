"""Whether a pipeline makes sense: every mistake of it, found in one pass over names, edges, types and shape.

    types in topological order ─► names, specs, references, ports ─► cycles ─► outputs, chat ─► what is unused

Knows nothing of what is deployed: whether a model or an index exists is asked when the pipeline is compiled.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import networkx as nx
from msgspec import UNSET
from msgspec.structs import replace

from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref, located, references
from graphs.conditions import ConditionRefused, parse_condition, type_fault
from graphs.errors import Path, Problem, nearest
from graphs.pipeline import CONTEXT_FIELDS, MAX_NODES, Node, NodeId, Pipeline, name_fault
from graphs.ports import (
    ANY,
    STRING,
    Field,
    Port,
    PortType,
    assignable,
    common,
    constraints_of,
    faults,
    list_of,
    optional,
    record_of,
    type_of,
)

MAX_EXPANSION = 1_000
"""Values that one value can hold, through however many others."""
MAX_VALUE_DEPTH = 32


def check(
    pipeline: Pipeline, unreadable: Set[str] = frozenset(), loose: Iterable[tuple[Path, Ref]] = ()
) -> list[Problem]:
    """Every problem, warnings included.

    `unreadable` names what is there but was already complained of; `loose` are the references of nodes that
    could not be read, and their places.
    """
    checker = _Checker(pipeline, unreadable)
    return [*checker.run(), *(problem for path, ref in loose for problem in checker.reference(path, ref))]


def binding_path(node_id: str, node: Node, port: str) -> Path:
    """Where in the YAML the binding of a port stands."""
    if node.spec.shorthand == port:
        return ("nodes", node_id, node.kind)
    return ("nodes", node_id, "with", port)


def dependencies(pipeline: Pipeline) -> nx.DiGraph[str]:
    """The nodes, with an edge from each to those that refer to it or come after it."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(pipeline.nodes)
    for node_id, node in pipeline.nodes.items():
        for ref in node.references():
            if ref.owner in pipeline.nodes:
                graph.add_edge(ref.owner, node_id)
        graph.add_edges_from((other, node_id) for other in node.after if other in pipeline.nodes)
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


def output_types(pipeline: Pipeline) -> dict[NodeId, Mapping[str, PortType]]:
    """The types of every node's output ports. Nodes on or behind a cycle are absent."""
    return _Checker(pipeline, frozenset()).types


class Typed(NamedTuple):
    """The types of the values of a pipeline that is right."""

    refs: Mapping[Ref, PortType]
    """Of all that can be referred to, where it is there."""
    absent: Container[Ref]
    """Of these what may be absent."""
    outputs: Mapping[str, PortType]
    """By name of an output, absence and defaults taken into account."""


def typed(pipeline: Pipeline) -> Typed:
    """The types of a pipeline that has no problems."""
    checker = _Checker(pipeline, frozenset())
    outputs = {name: checker.output_type(name) or ANY for name in pipeline.outputs}
    return Typed(checker.refs, checker.absent, outputs)


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


class _Checker:
    def __init__(self, pipeline: Pipeline, unreadable: Set[str]) -> None:
        self.pipeline = pipeline
        self.unreadable = unreadable
        self.graph = dependencies(pipeline)
        self.refs: dict[Ref, PortType] = {
            Ref(INPUTS, name): port.type for name, port in pipeline.inputs.items()
        } | {
            Ref(CONTEXT, name): CONTEXT_FIELDS[name]
            for name in pipeline.context.reads
            if name in CONTEXT_FIELDS
        }
        self.types: dict[NodeId, Mapping[str, PortType]] = {}
        self.absent: set[Ref] = set()
        """Outputs of nodes that may be skipped."""
        self._infer()

    def run(self) -> Iterator[Problem]:
        yield from self._whole()
        yield from self._inputs()
        for node_id, node in self.pipeline.nodes.items():
            yield from self._node(node_id, node)
        yield from self._cycles()
        yield from self._expansion()
        yield from self._outputs()
        yield from self._chat()
        yield from self._context()
        yield from self._unused()

    def _infer(self) -> None:
        """Types of output ports, each node after those it refers to; nodes on a cycle stay unknown."""
        waiting = dict(self.graph.in_degree())
        ready = [node_id for node_id, count in waiting.items() if count == 0]
        while ready:
            node_id = NodeId(ready.pop())
            node = self.pipeline.nodes[node_id]
            given = {
                port: binding_type(binding, self.refs, self.absent) for port, binding in node.inputs.items()
            }
            known = {port: port_type for port, port_type in given.items() if port_type is not None}
            outputs = node.spec.outputs(known)
            self.types[node_id] = outputs
            refs = {Ref(node_id, port): port_type for port, port_type in outputs.items()}
            self.refs.update(refs)
            if may_be_skipped(node, self.absent):
                self.absent.update(refs)
            for successor in self.graph.successors(node_id):
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)

    def _whole(self) -> Iterator[Problem]:
        fault = name_fault(self.pipeline.metadata.name)
        if fault and "metadata" not in self.unreadable:
            yield Problem("bad-name", fault, ("metadata", "name"))
        if not self.pipeline.nodes and not self.unreadable:
            yield Problem("missing", "a pipeline needs nodes", ("nodes",))
        if len(self.pipeline.nodes) > MAX_NODES:
            yield Problem("too-large", f"more than {MAX_NODES} nodes", ("nodes",))

    def _inputs(self) -> Iterator[Problem]:
        for name, port in self.pipeline.inputs.items():
            path: Path = ("inputs", name)
            if fault := name_fault(name):
                yield Problem("bad-name", fault, path, on_key=True)
            for keyword in sorted(set(port.constraints) - constraints_of(port.type)):
                message = f"{keyword} says nothing of a {port.type}"
                yield Problem("unknown-field", message, (*path, keyword), on_key=True)
            for keyword, limit in port.constraints.items():
                if not _fits_keyword(keyword, limit):
                    yield Problem("bad-value", f"{keyword} cannot be {limit!r}", (*path, keyword))
                    break
            else:
                if port.default is not UNSET:
                    for message in faults(port, port.default):
                        yield Problem(
                            "bad-default", f"the default does not fit: {message}", (*path, "default")
                        )

    def _node(self, node_id: NodeId, node: Node) -> Iterator[Problem]:
        path: Path = ("nodes", node_id)
        if fault := name_fault(node_id):
            yield Problem("bad-name", fault, path, on_key=True)
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
            where = binding_path(node_id, node, name)
            if name in ports:
                yield from self._edge(where, ports[name], binding)
            elif ports or not broken:
                message = f"{node_id} has no input {name}, being of kind {node.kind}"
                yield Problem("unknown-port", message, where, on_key=True, hint=nearest(name, ports))
            for place, ref in located(binding, where):
                yield from self.reference(place, ref)
        yield from self._after(path, node)
        yield from self._when((*path, "when"), node)
        if node_id not in self.unreadable:
            yield from self._missing(node_id, node, ports)

    def _after(self, path: Path, node: Node) -> Iterator[Problem]:
        for index, other in enumerate(node.after):
            place = (*path, "after", index)
            if other in node.after[:index]:
                yield Problem("duplicate", f"{other} is named twice", place)
            elif other not in self.pipeline.nodes and other not in self.unreadable:
                hint = nearest(other, self.pipeline.nodes)
                yield Problem("unknown-node", f"there is no node {other}", place, hint=hint)

    def _when(self, path: Path, node: Node) -> Iterator[Problem]:
        if node.when is None:
            return
        try:
            parsed = parse_condition(node.when)
        except ConditionRefused as refused:
            for fault in refused.faults:
                yield Problem(
                    "bad-condition",
                    fault.message,
                    path,
                    line_in_text=fault.line,
                    token=fault.token,
                    nth=fault.nth,
                    hint=fault.hint,
                )
            return
        for mention in parsed.mentions:
            for problem in self.reference(path, mention.ref):
                yield replace(problem, line_in_text=mention.line, token=mention.token, nth=mention.nth)
        refs = [mention.ref for mention in parsed.mentions]
        unfit = type_fault(
            parsed,
            [self.refs.get(ref) for ref in refs],
            [ref in self.absent or self.refs.get(ref, ANY).name == "optional" for ref in refs],
        )
        if unfit is not None:
            yield Problem("bad-condition", f"the condition cannot work: {unfit}", path)

    def _missing(self, node_id: NodeId, node: Node, ports: Mapping[str, Port]) -> Iterator[Problem]:
        lines = node.spec.variables()
        for name, port in ports.items():
            if port.required and name not in node.inputs:
                near = nearest(name, set(node.inputs) - set(ports))
                if name in lines:
                    field, line = lines[name]
                    yield Problem(
                        "missing-input",
                        f"nothing is given for the variable {name}",
                        ("nodes", node_id, node.kind, field),
                        line_in_text=line,
                        token=name,
                        hint=near or f"give it in with: {name}",
                    )
                else:
                    message = f"{node_id} needs its input {name}, a {port.type}"
                    yield Problem("missing-input", message, ("nodes", node_id), on_key=True, hint=near)

    def _edge(self, path: Path, port: Port, binding: Binding) -> Iterator[Problem]:
        """Whether what is bound fits the port."""
        if isinstance(binding, Literal):
            for message in faults(port, binding.value):
                yield Problem("type-mismatch", f"{path[-1]}: {message}", path)
            return
        given = binding_type(binding, self.refs)
        if given is not None and not assignable(given, port.type):
            said = str(binding) if isinstance(binding, Ref) else "this"
            yield Problem("type-mismatch", f"{said} is a {given}, {path[-1]} takes a {port.type}", path)

    def reference(self, path: Path, ref: Ref) -> Iterator[Problem]:
        pipeline = self.pipeline
        known = ref in self.refs or f"{ref.owner}.{ref.port}" in self.unreadable
        if known or (ref.owner in self.unreadable and ref.owner not in pipeline.nodes):
            return
        if ref.owner == INPUTS:
            hint = nearest(ref.port, pipeline.inputs)
            yield Problem("unknown-input", f"the pipeline has no input {ref.port}", path, hint=hint)
        elif ref.owner == CONTEXT:
            if ref.port in CONTEXT_FIELDS:
                hint = f"add it to context: {{reads: [{ref.port}]}}"
                message = f"the pipeline does not declare that it reads {ref.port}"
                yield Problem("undeclared-context", message, path, hint=hint)
            else:
                hint = nearest(ref.port, CONTEXT_FIELDS)
                yield Problem("unknown-context", f"the context has no field {ref.port}", path, hint=hint)
        elif ref.owner not in pipeline.nodes:
            near = nearest(ref.owner, {*pipeline.nodes, INPUTS, CONTEXT})
            yield Problem("unknown-node", f"there is no node {ref.owner}", path, hint=near)
        else:
            ports = pipeline.nodes[NodeId(ref.owner)].ports()
            if ref.port not in ports:
                kind = pipeline.nodes[NodeId(ref.owner)].kind
                message = f"{ref.owner} has no output {ref.port}, being of kind {kind}"
                yield Problem("unknown-port", message, path, hint=nearest(ref.port, ports))

    def _cycles(self) -> Iterator[Problem]:
        """One problem for each knot of nodes that wait for each other, showing one way round."""
        for knot in nx.strongly_connected_components(self.graph):
            some = min(knot)
            if len(knot) == 1 and not self.graph.has_edge(some, some):
                continue
            edges = nx.find_cycle(self.graph.subgraph(knot), some)
            path = " → ".join([edge[0] for edge in edges] + [edges[0][0]])
            yield Problem("cycle", f"nodes wait for each other: {path}", ("nodes", edges[0][0]), on_key=True)

    def _expansion(self) -> Iterator[Problem]:
        """Values that hold values that hold values: how many and how deep, before any is made."""
        size: dict[str, int] = {}
        depth: dict[str, int] = {}
        for node_id in self.types:  # in topological order
            node = self.pipeline.nodes[node_id]
            refs = [ref.owner for binding in node.inputs.values() for ref in references(binding)]
            if node.spec.shorthand is None:
                continue
            size[node_id] = 1 + sum(size.get(owner, 1) for owner in refs)
            depth[node_id] = 1 + max((depth.get(owner, 0) for owner in refs), default=0)
            if size[node_id] > MAX_EXPANSION or depth[node_id] > MAX_VALUE_DEPTH:
                message = f"{node_id} holds too many values, or values nested too deep"
                yield Problem("too-large", message, ("nodes", node_id), on_key=True)
                return

    def _outputs(self) -> Iterator[Problem]:
        if not self.pipeline.outputs and not self.unreadable:
            yield Problem("missing", "a pipeline needs outputs", ("outputs",))
        for name, ref in self.pipeline.outputs.items():
            path: Path = ("outputs", name)
            if fault := name_fault(name):
                yield Problem("bad-name", fault, path, on_key=True)
            yield from self.reference((*path, "from") if name in self.pipeline.defaults else path, ref)
            yield from self._absence(name, ref, path)

    def _absence(self, name: str, ref: Ref, path: Path) -> Iterator[Problem]:
        """Whether an output that may be absent says what it is then, and one that may not says nothing."""
        defaults = self.pipeline.defaults
        if ref in self.absent and name not in defaults:
            hint = f'write {name}: {{from: "{ref}", optional: true}}, or give a default'
            yield Problem("may-be-absent", f"{ref} is absent where {ref.owner} is skipped", path, hint=hint)
        elif name in defaults and ref in self.refs and ref not in self.absent:
            message = f"{ref} is never absent"
            yield Problem("unused-default", message, path, on_key=True, severity="warning")
        elif defaults.get(name) is not None and ref in self.refs:
            for message in faults(Port(self.refs[ref]), defaults[name]):
                yield Problem("bad-default", f"the default does not fit: {message}", (*path, "default"))

    def output_type(self, name: str) -> PortType | None:
        """The type of an output; None where it is not known."""
        port_type = self.refs.get(self.pipeline.outputs[name])
        is_optional = name in self.pipeline.defaults and self.pipeline.defaults[name] is None
        if port_type is None or not is_optional or port_type.name in ("any", "optional"):
            return port_type
        return optional(port_type)

    def _chat(self) -> Iterator[Problem]:
        chat = self.pipeline.chat
        if chat is not None:
            yield from self._chat_input(chat.input)
            yield from self._chat_output(chat.output)

    def _chat_input(self, name: str) -> Iterator[Problem]:
        inputs, path = self.pipeline.inputs, ("chat", "input")
        if name not in inputs:
            if f"{INPUTS}.{name}" not in self.unreadable:
                hint = nearest(name, inputs)
                yield Problem("unknown-input", f"the pipeline has no input {name}", path, hint=hint)
            return
        if not assignable(STRING, inputs[name].type):
            message = f"{name} is a {inputs[name].type}, a chat gives a string"
            yield Problem("type-mismatch", message, path)
        others = [other for other, port in inputs.items() if port.required and other != name]
        if others:
            message = f"a chat gives only {name}, but {others[0]} is required too"
            yield Problem("missing-input", message, path, hint=f"give {others[0]} a default")

    def _chat_output(self, name: str) -> Iterator[Problem]:
        outputs, path = self.pipeline.outputs, ("chat", "output")
        if name not in outputs:
            if f"outputs.{name}" not in self.unreadable:
                hint = nearest(name, outputs)
                yield Problem("unknown-output", f"the pipeline has no output {name}", path, hint=hint)
        elif not assignable(self.output_type(name) or STRING, STRING):
            message = f"{name} is a {self.output_type(name)}, a reply is a string"
            yield Problem("type-mismatch", message, path)

    def _context(self) -> Iterator[Problem]:
        for index, name in enumerate(self.pipeline.context.reads):
            if name not in CONTEXT_FIELDS:
                hint = nearest(name, CONTEXT_FIELDS)
                message = f"the context has no field {name}"
                yield Problem("unknown-context", message, ("context", "reads", index), hint=hint)

    def _unused(self) -> Iterator[Problem]:
        """Warnings: what could be left out."""
        wanted = reaching_outputs(self.graph, self.pipeline.outputs.values())
        for node_id in self.pipeline.nodes:
            if node_id not in wanted and not self.unreadable:
                message = f"{node_id} reaches no output and is never run"
                yield Problem("unused-node", message, ("nodes", node_id), on_key=True, severity="warning")
        used = set(self.pipeline.outputs.values())
        for node in self.pipeline.nodes.values():
            used.update(node.references())
        for name in self.pipeline.inputs:
            if Ref(INPUTS, name) not in used and not self.unreadable:
                message = f"the input {name} is never used"
                yield Problem("unused-input", message, ("inputs", name), on_key=True, severity="warning")


def _fits_keyword(keyword: str, limit: object) -> bool:
    if keyword == "enum":
        return isinstance(limit, list) and bool(limit)
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        return False
    return keyword in ("minimum", "maximum") or (isinstance(limit, int) and limit >= 0)
