"""Plain data to `Pipeline`, part by part. Every part that is wrong becomes a `Problem` with its path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import fields as fields_of

from graphs import bindings
from graphs.bindings import BadReference, Binding, Ref
from graphs.conditions import MAX_TOTAL_CHARS
from graphs.durations import parse_duration
from graphs.errors import Path, Problem, nearest
from graphs.nodes.registry import KINDS, AnySpec
from graphs.pipeline import API_VERSION, Chat, Context, Metadata, Node, NodeId, Pipeline, Policies
from graphs.ports import NAMES, Port, constraints_of, parse_type

_TOP = ("apiVersion", "kind", "metadata", "inputs", "context", "nodes", "outputs", "chat", "policies")
_PORT_FIELDS = frozenset({"type", "default", "description"})
_OUTPUT_FIELDS = ("from", "default", "optional")
_NODE_FIELDS = ("with", "after", "when")
"""What a node may have beside its kind."""

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Draft:
    """What could be read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.pipeline: Pipeline | None = None
        """None when the whole is no pipeline."""
        self.unreadable: set[str] = set()
        """Names of nodes, and as `inputs.name` and `outputs.name` of the others, that are there but wrong."""
        self.loose: list[tuple[Path, Ref]] = []
        """References of nodes that are not in the pipeline because they could not be read."""


def read_pipeline(data: Any) -> Draft:
    """Never raises for what `data` says."""
    reader = _Reader()
    reader.pipeline(data)
    return reader.draft


class _Reader:
    def __init__(self) -> None:
        self.draft = Draft()
        self._condition_chars = 0

    def pipeline(self, data: Any) -> None:
        if not self._is_mapping(data, ()):
            return
        self._known(data, _TOP, ())
        for field, value in (("apiVersion", API_VERSION), ("kind", "Pipeline")):
            if data.get(field) != value:
                self._problem("bad-value", f"{field} must be {value}", (field,))
        metadata = self._metadata(data.get("metadata"))
        if metadata is None:
            self.draft.unreadable.add("metadata")
        nodes = {
            NodeId(name): node
            for name, body in self._entries(data, "nodes")
            if (node := self._node(name, body)) is not None
        }
        outputs = {
            name: ref
            for name, body in self._entries(data, "outputs")
            if (ref := self._output(name, body)) is not None
        }
        defaults = {
            name: body.get("default")
            for name, body in self._entries(data, "outputs", required=False)
            if name in outputs and isinstance(body, dict) and len(body) > 1
        }
        inputs = {
            name: port
            for name, body in self._entries(data, "inputs", required=False)
            if (port := self._input(name, body)) is not None
        }
        self.draft.pipeline = Pipeline(
            metadata=metadata or Metadata(""),
            nodes=nodes,
            outputs=outputs,
            inputs=inputs,
            context=self._section(data, "context", Context) or Context(),
            chat=self._section(data, "chat", Chat),
            policies=self._policies(data),
            defaults=defaults,
        )

    def _metadata(self, data: Any) -> Metadata | None:
        if data is None:
            self._problem("missing", "a pipeline needs metadata with a name", ("metadata",))
            return None
        return self._struct(data, Metadata, ("metadata",))

    def _section(self, data: dict[str, Any], name: str, into: type[StructT]) -> StructT | None:
        return self._struct(data[name], into, (name,)) if data.get(name) is not None else None

    def _policies(self, data: dict[str, Any]) -> Policies:
        body = data.get("policies")
        if body is None or not self._is_mapping(body, ("policies",)):
            return Policies()
        body = dict(body)
        if "deadline" in body:
            try:
                body["deadline_s"] = parse_duration(body.pop("deadline"))
            except ValueError as error:
                self._problem("bad-value", str(error), ("policies", "deadline"))
                body.pop("deadline", None)
        elif "deadline_s" in body:
            self._problem(
                "unknown-field",
                "unknown field deadline_s",
                ("policies", "deadline_s"),
                on_key=True,
                hint="did you mean deadline?",
            )
            del body["deadline_s"]
        return self._struct(body, Policies, ("policies",)) or Policies()

    def _input(self, name: str, body: Any) -> Port | None:
        path: Path = ("inputs", name)
        port = self._port(body, path)
        if port is None:
            self.draft.unreadable.add(f"{bindings.INPUTS}.{name}")
        return port

    def _port(self, body: Any, path: Path) -> Port | None:
        if isinstance(body, str):
            body, type_path = {"type": body}, path
        else:
            type_path = (*path, "type")
        if not self._is_mapping(body, path):
            return None
        if not isinstance(body.get("type"), str):
            self._problem("missing", "an input needs a type", path)
            return None
        try:
            port_type = parse_type(body["type"])
        except ValueError as error:
            word = str(error).removeprefix("unknown type ")
            hint = nearest(word, NAMES) if word != str(error) else None
            self._problem("unknown-type", str(error), type_path, hint=hint)
            return None
        allowed = constraints_of(port_type)
        self._known(body, _PORT_FIELDS | allowed, path)
        constraints = {name: value for name, value in body.items() if name in allowed}
        description = body.get("description", "")
        if not isinstance(description, str):
            self._problem("bad-value", "expected a text", (*path, "description"))
            description = ""
        return Port(port_type, body.get("default", msgspec.UNSET), description, constraints)

    def _output(self, name: str, body: Any) -> Ref | None:
        path: Path = ("outputs", name)
        if isinstance(body, dict) and "from" in body:
            self._known(body, _OUTPUT_FIELDS, path)
            if body.get("optional", True) is not True:
                self._problem("bad-value", "optional is true or not there", (*path, "optional"))
            elif "optional" in body and "default" in body:
                self._problem("bad-value", "an output is optional or has a default", (*path, "default"))
            body, path = body["from"], (*path, "from")
        binding = self._binding(body, path)
        if isinstance(binding, Ref):
            return binding
        self.draft.unreadable.add(f"outputs.{name}")
        if binding is None:
            return None
        hint = "put it together in a value node"
        self._problem("bad-reference", "an output is a reference", path, hint=hint)
        return None

    def _node(self, name: str, body: Any) -> Node | None:
        path: Path = ("nodes", name)
        before = len(self.draft.problems)
        spec: AnySpec | None = None
        inputs: dict[str, Binding] = {}
        after: tuple[NodeId, ...] = ()
        when: str | None = None
        if self._is_mapping(body, path):
            kind = self._kind(body, path)
            after = self._after(body.get("after", []), (*path, "after"))
            when = self._when(body, path)
            if kind is not None:
                spec, inputs = self._body(KINDS[kind], body, path)
        if spec is None or len(self.draft.problems) > before:
            self.draft.unreadable.add(name)
        if spec is not None:
            return Node(spec, inputs, after, when)
        for port, binding in inputs.items():
            self.draft.loose += bindings.located(binding, (*path, "with", port))
        return None

    def _after(self, data: Any, path: Path) -> tuple[NodeId, ...]:
        if not isinstance(data, list):
            hint = f"write [{data}]" if isinstance(data, str) else None
            self._problem("bad-value", "expected a list of names of nodes", path, hint=hint)
            return ()
        for index, item in enumerate(data):
            if not isinstance(item, str):
                self._problem("bad-value", "expected the name of a node", (*path, index))
        return tuple(NodeId(item) for item in data if isinstance(item, str))

    def _when(self, body: dict[str, Any], path: Path) -> str | None:
        """The condition, checked; None where there is none or none that can be used."""
        if "when" not in body:
            return None
        path, source = (*path, "when"), body["when"]
        if not isinstance(source, str):
            hint = 'write it as a text: "node.port > 3"'
            self._problem("bad-value", "expected a condition", path, hint=hint)
            return None
        if "${" in source:
            hint = "write node.port without ${ }"
            self._problem("bad-condition", "references stand bare in a condition", path, hint=hint)
            return None
        before, self._condition_chars = self._condition_chars, self._condition_chars + len(source)
        if self._condition_chars > MAX_TOTAL_CHARS:
            if before <= MAX_TOTAL_CHARS:
                message = f"the conditions of a pipeline have at most {MAX_TOTAL_CHARS} characters together"
                self._problem("too-large", message, path)
            return None
        return source

    def _kind(self, body: dict[str, Any], path: Path) -> str | None:
        """The one key that names a kind."""
        kinds = [key for key in body if key in KINDS]
        others = [key for key in body if key not in KINDS and key not in _NODE_FIELDS]
        if not kinds and len(others) == 1:
            hint = nearest(others[0], KINDS)
            self._problem(
                "unknown-kind", f"unknown kind {others[0]}", (*path, others[0]), on_key=True, hint=hint
            )
            return None
        for key in others:
            hint = nearest(key, [*KINDS, *_NODE_FIELDS])
            self._problem("unknown-field", f"unknown field {key}", (*path, key), on_key=True, hint=hint)
        if len(kinds) != 1:
            said = " and ".join(kinds) or "none"
            self._problem("bad-value", f"a node has one kind, this one has {said}", path, on_key=True)
            return None
        return kinds[0]

    def _body(
        self, spec_type: type[AnySpec], body: dict[str, Any], path: Path
    ) -> tuple[AnySpec | None, dict[str, Binding]]:
        kind = spec_type.kind()
        inputs: dict[str, Binding] = {}
        if spec_type.shorthand is not None:
            binding = self._binding(body[kind], (*path, kind))
            if "with" in body:
                self._problem("unknown-field", f"{kind} takes no with", (*path, "with"), on_key=True)
            return spec_type(), {} if binding is None else {spec_type.shorthand: binding}  # type: ignore[call-arg]
        ports = body.get("with", {})
        if self._is_mapping(ports, (*path, "with")):
            for port, value in ports.items():
                binding = self._binding(value, (*path, "with", port))
                if binding is not None:
                    inputs[port] = binding
        return self._struct(body[kind], spec_type, (*path, kind)), inputs

    def _binding(self, data: Any, path: Path) -> Binding | None:
        try:
            return bindings.parse(data)
        except BadReference as error:
            self._problem("bad-reference", str(error), path)
            return None

    def _struct(self, data: Any, into: type[StructT], path: Path) -> StructT | None:
        """Reads field by field, so that every field at fault is named and not only the first.

        What is wrong is left at its default; None where it has none.
        """
        if not self._is_mapping(data, path):
            return None
        fields = {field.encode_name: field for field in fields_of(into)}
        self._known(data, fields, path)
        values: dict[str, Any] = {}
        complete = True
        for name, field in fields.items():
            if name in data:
                try:
                    values[field.name] = msgspec.convert(data[name], field.type)
                except msgspec.ValidationError as error:
                    self._problem("bad-value", _sentence(error), (*path, name))
                    complete &= not field.required
            elif field.required:
                self._problem("missing", f"{name} is missing", path, on_key=True)
                complete = False
        return into(**values) if complete else None

    def _entries(
        self, data: dict[str, Any], section: str, *, required: bool = True
    ) -> Iterable[tuple[str, Any]]:
        body = data.get(section)
        if body is None:
            if required:
                self._problem("missing", f"a pipeline needs {section}", (section,))
            return ()
        return list(body.items()) if self._is_mapping(body, (section,)) else ()

    def _known(self, data: dict[str, Any], known: Iterable[str], path: Path) -> None:
        names = list(known)
        for key in data:
            if key not in names:
                hint = nearest(key, names)
                self._problem("unknown-field", f"unknown field {key}", (*path, key), on_key=True, hint=hint)

    def _is_mapping(self, data: Any, path: Path) -> bool:
        if isinstance(data, dict):
            return True
        self._problem("bad-value", "expected fields and their values", path)
        return False

    def _problem(
        self, code: str, message: str, path: Path, *, on_key: bool = False, hint: str | None = None
    ) -> None:
        self.draft.problems.append(Problem(code, message, path, on_key, hint=hint))


def _sentence(error: msgspec.ValidationError) -> str:
    """msgspec's message without its own path, in our words."""
    text = str(error).split(" - at ")[0].replace("`", "")
    return text[:1].lower() + text[1:]
