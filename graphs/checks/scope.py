"""What can be referred to somewhere, and what is wrong with a reference.

pipeline:  inputs, context, its nodes
└── body:  all that, the locals of the kind of its node, and its own nodes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from msgspec.structs import replace

from graphs.bindings import CONTEXT, INPUTS, RESERVED, Binding, Items, Literal, Record, Ref, located
from graphs.conditions import ConditionRefused, parse_condition, type_fault
from graphs.errors import Path, Problem, nearest
from graphs.inference import Typed, binding_type
from graphs.nodes.spec import NO_BODIES, BodyTypes
from graphs.pipeline import CONTEXT_FIELDS, Node, NodeId, Pipeline
from graphs.ports import ANY, Field, Port, PortType, assignable, faults, optional, whole

Unreadable = Mapping[Path, Set[str]]
"""By place of a body, empty for the pipeline itself: the names of what was complained of already."""


class Scope:
    """The nodes of a pipeline or of a body, with all that they can refer to."""

    def __init__(
        self,
        pipeline: Pipeline,
        nodes: Mapping[NodeId, Node],
        types: Typed,
        unreadable: Unreadable,
        path: Path = (),
        own: BodyTypes = NO_BODIES,
        around: Scope | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.nodes = nodes
        self.types = types
        self.path = path
        """Where they stand."""
        self.own = own
        """What only they can refer to, besides each other."""
        self.around = around
        self.complained: Set[str] = unreadable.get(path, frozenset())
        self._unreadable = unreadable

    def inside(self, path: Path, nodes: Mapping[NodeId, Node], types: Typed, own: BodyTypes) -> Scope:
        """That of a body of one of the nodes."""
        return Scope(self.pipeline, nodes, types, self._unreadable, path, own, self)

    def outward(self) -> Iterator[Scope]:
        """This one and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.around

    @property
    def all_read(self) -> bool:
        """Whether nothing of the whole file was complained of."""
        return not any(self._unreadable.values())

    def shadows(self, name: str) -> bool:
        """Whether a node in here of that name would hide something else."""
        if name in self.own:
            return True
        return self.around is not None and self.around.has(name)

    def has(self, name: str) -> bool:
        """Whether a reference can name it."""
        return name in RESERVED or any(name in scope.nodes or name in scope.own for scope in self.outward())

    def owners(self) -> frozenset[str]:
        """All that a reference can name."""
        return RESERVED.union(*((*scope.nodes, *scope.own) for scope in self.outward()))

    def ports_of(self, owner: str) -> Iterable[str] | None:
        """The ports of a node or of a local; None where there is no such."""
        for scope in self.outward():
            if owner in scope.own:
                return scope.own[owner]
            if owner in scope.nodes:
                return scope.nodes[NodeId(owner)].ports()
        return None

    def reference(self, path: Path, ref: Ref) -> Iterator[Problem]:
        """What is wrong with a reference that stands at `path`."""
        if ref in self.types.refs or self._was_complained_of(ref):
            return
        if ref.owner == INPUTS:
            near = nearest(ref.port, self.pipeline.inputs)
            yield Problem("unknown-input", f"the pipeline has no input {ref.port}", path, hint=near)
        elif ref.owner == CONTEXT:
            yield _unknown_context(ref.port, path)
        elif (ports := self.ports_of(ref.owner)) is None:
            message = f"there is no node {ref.owner}"
            yield Problem("unknown-node", message, path, hint=self._meant(ref.owner))
        elif ref.port not in ports:
            told = f"{ref.owner} has no output {ref.port}{self._being(ref.owner)}"
            yield Problem("unknown-port", told, path, hint=nearest(ref.port, ports))

    def binding(self, path: Path, binding: Binding) -> Iterator[Problem]:
        """What is wrong with the references of a binding that stands at `path`."""
        for place, ref in located(binding, path):
            yield from self.reference(place, ref)

    def edge(self, path: Path, port: Port, binding: Binding) -> Iterator[Problem]:
        """Whether what is bound fits the port."""
        wanted = whole(port.type)
        inner = wanted.item if wanted.name == "optional" and wanted.item is not None else wanted
        if isinstance(binding, Literal):
            for message in faults(port, binding.value):
                yield Problem("type-mismatch", f"{_label(path)}: {message}", path)
        elif isinstance(binding, Record) and inner.fields:
            yield from self._fields(path, inner.fields, binding)
        elif isinstance(binding, Items) and inner.name == "list" and inner.item is not None:
            for index, item in enumerate(binding.items):
                yield from self._part((*path, index), inner.item, item)
        else:
            yield from self._flow(path, wanted, binding, binding_type(binding, self.types.refs))

    def _fields(self, path: Path, wanted: Iterable[Field], binding: Record) -> Iterator[Problem]:
        """Whether a record that is put together has the fields that are wanted. More do no harm."""
        for field in wanted:
            if field.name in binding.fields:
                yield from self._part((*path, field.name), field.type, binding.fields[field.name])
            elif field.required:
                message = f"{_label(path)} needs the field {field.name}, a {field.type}"
                hint = nearest(field.name, set(binding.fields) - {each.name for each in wanted})
                yield Problem("type-mismatch", message, path, hint=hint)

    def _part(self, path: Path, wanted: PortType, binding: Binding) -> Iterator[Problem]:
        """Whether a part of a list or record fits, where what is absent is null."""
        if isinstance(binding, Ref) and binding in self.types.absent and binding in self.types.refs:
            yield from self._flow(path, wanted, binding, optional(self.types.refs[binding]))
        else:
            yield from self.edge(path, Port(wanted), binding)

    def _flow(
        self, path: Path, wanted: PortType, binding: Binding, given: PortType | None
    ) -> Iterator[Problem]:
        if given is not None and not assignable(given, wanted):
            said = str(binding) if isinstance(binding, Ref) else "this"
            told = f"{said} is a {given}, {_label(path)} takes a {wanted}"
            yield Problem("type-mismatch", told, path)

    def condition(self, path: Path, source: str) -> Iterator[Problem]:
        """What is wrong with a condition that stands at `path`."""
        try:
            parsed = parse_condition(source)
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
        refs, types = [mention.ref for mention in parsed.mentions], self.types
        unfit = type_fault(
            parsed,
            [types.refs.get(ref) for ref in refs],
            [ref in types.absent or types.refs.get(ref, ANY).name == "optional" for ref in refs],
        )
        if unfit is not None:
            yield Problem("bad-condition", f"the condition cannot work: {unfit}", path)

    def _was_complained_of(self, ref: Ref) -> bool:
        for scope in self.outward():
            if f"{ref.owner}.{ref.port}" in scope.complained:
                return True
            if ref.owner in scope.complained:
                node = scope.nodes.get(NodeId(ref.owner))
                return node is None or bool(node.bodies)
        return False

    def _being(self, owner: str) -> str:
        node = next((scope.nodes[NodeId(owner)] for scope in self.outward() if owner in scope.nodes), None)
        return "" if node is None else f", being of kind {node.kind}"

    def _meant(self, owner: str) -> str | None:
        """The nearest name; or, of a node inside another, that one."""
        for scope in self.outward():
            for name, node in scope.nodes.items():
                if any(owner in body.nodes for body in node.bodies.values()) and not node.spec.closed:
                    return f"it is inside {name}: make it one of the outputs there"
        return nearest(owner, self.owners())


def _label(path: Path) -> str:
    """What people call the end of a path."""
    return f"item {path[-1] + 1}" if isinstance(path[-1], int) else path[-1]


def _unknown_context(field: str, path: Path) -> Problem:
    if field in CONTEXT_FIELDS:
        told = f"the pipeline does not declare that it reads {field}"
        return Problem("undeclared-context", told, path, hint=f"add it to context: {{reads: [{field}]}}")
    hint = nearest(field, CONTEXT_FIELDS)
    return Problem("unknown-context", f"the context has no field {field}", path, hint=hint)
