"""What every part of the reader needs: where it is, what was wrong so far, and how plain values are read."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import FieldInfo
from msgspec.structs import fields as fields_of

from graphs import bindings
from graphs.bindings import BadReference, Binding, Ref
from graphs.conditions import MAX_TOTAL_CHARS
from graphs.durations import parse_duration
from graphs.errors import Path, Problem, nearest
from graphs.known import Known
from graphs.ports import NAMES, Port, constraints_of, parse_type

_PORT_FIELDS = frozenset({"type", "default", "description"})

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Place(NamedTuple):
    """Where a value stands."""

    path: Path
    """In the file."""
    full: Path
    """Where it would stand if no body were written as one node."""

    def down(self, *parts: str | int) -> Place:
        return Place((*self.path, *parts), (*self.full, *parts))


class Loose(NamedTuple):
    """A reference of a node that could not be read."""

    body: Path
    """Place in full of the body that the node is in; empty for the pipeline itself."""
    path: Path
    ref: Ref


class Reading:
    """What was found so far, and the plain values of any part."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.problems: list[Problem] = []
        self.unreadable: dict[Path, set[str]] = {}
        """By place in full of a body, empty for the pipeline itself: the names of its nodes that are there
        but wrong; of the pipeline also `inputs.NAME`, `outputs.NAME` and `metadata`."""
        self.loose: list[Loose] = []
        self.moved: dict[Path, Path] = {}
        """Where nodes stand that are the only ones of their bodies, by where they would stand in full."""
        self._condition_chars = 0

    def problem(
        self, code: str, message: str, path: Path, *, on_key: bool = False, hint: str | None = None
    ) -> None:
        self.problems.append(Problem(code, message, path, on_key, hint=hint))

    def mark(self, body: Path, name: str) -> None:
        """Notes that something of a body is there but wrong."""
        self.unreadable.setdefault(body, set()).add(name)

    def is_mapping(self, data: Any, path: Path) -> bool:
        if isinstance(data, dict):
            return True
        self.problem("bad-value", "expected fields and their values", path)
        return False

    def known_fields(self, data: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
        names = list(known)
        for key in data:
            if key not in names:
                hint = nearest(key, names)
                self.problem("unknown-field", f"unknown field {key}", (*path, key), on_key=True, hint=hint)

    def struct(
        self,
        data: Any,
        into: type[StructT],
        path: Path,
        *,
        hidden: Container[str] = (),
        beside: Iterable[str] = (),
        given: Mapping[str, Any] | None = None,
        instead: Mapping[str, Any] | None = None,
    ) -> StructT | None:
        """Reads field by field, so that every field at fault is named and not only the first.

        What is wrong is left at its default; None where it has none and there is nothing `instead`.
        `hidden` are fields that cannot be written, `beside` other keys that may be there, `given` what was
        read before.
        """
        if not self.is_mapping(data, path):
            return None
        given, instead = given or {}, instead or {}
        fields = {field.encode_name: field for field in _fields(into) if field.encode_name not in hidden}
        self.known_fields(data, [*fields, *beside], path)
        values: dict[str, Any] = {}
        complete = True
        for name, field in fields.items():
            if name in data:
                value = msgspec.to_builtins(given[name]) if name in given else data[name]
                try:
                    values[field.name] = msgspec.convert(value, field.type)
                except msgspec.ValidationError as error:
                    self.problem("bad-value", _sentence(error), (*path, name))
                    complete &= not field.required or name in instead
            elif field.required:
                self.problem("missing", f"{name} is missing", path, on_key=True)
                complete &= name in instead
            if field.required and field.name not in values and name in instead:
                values[field.name] = instead[name]
        return into(**values) if complete else None

    def binding(self, data: Any, path: Path) -> Binding | None:
        try:
            return bindings.parse(data)
        except BadReference as error:
            self.problem("bad-reference", str(error), path)
            return None

    def bound(self, data: Any, path: Path) -> dict[str, Binding]:
        """Bindings by name: of inputs, or of the outputs of a body."""
        if not self.is_mapping(data, path):
            return {}
        found = {name: self.binding(value, (*path, name)) for name, value in data.items()}
        return {name: binding for name, binding in found.items() if binding is not None}

    def condition(self, source: Any, path: Path) -> str | None:
        """A condition; None where there is none that can be used."""
        if not isinstance(source, str):
            hint = 'write it as a text: "node.port > 3"'
            self.problem("bad-value", "expected a condition", path, hint=hint)
            return None
        if "${" in source:
            hint = "write node.port without ${ }"
            self.problem("bad-condition", "references stand bare in a condition", path, hint=hint)
            return None
        before, self._condition_chars = self._condition_chars, self._condition_chars + len(source)
        if self._condition_chars > MAX_TOTAL_CHARS:
            if before <= MAX_TOTAL_CHARS:
                message = f"the conditions of a pipeline have at most {MAX_TOTAL_CHARS} characters together"
                self.problem("too-large", message, path)
            return None
        return source

    def duration(self, data: Any, path: Path) -> float | None:
        """Seconds."""
        try:
            return parse_duration(data)
        except ValueError as error:
            self.problem("bad-value", str(error), path)
            return None

    def port(self, body: Any, path: Path) -> Port | None:
        """An input of a pipeline or of a tool."""
        if isinstance(body, str):
            body, type_path = {"type": body}, path
        else:
            type_path = (*path, "type")
        if not self.is_mapping(body, path):
            return None
        if not isinstance(body.get("type"), str):
            self.problem("missing", "an input needs a type", path)
            return None
        try:
            port_type = parse_type(body["type"])
        except ValueError as error:
            word = str(error).removeprefix("unknown type ")
            hint = nearest(word, NAMES) if word != str(error) else None
            self.problem("unknown-type", str(error), type_path, hint=hint)
            return None
        allowed = constraints_of(port_type)
        self.known_fields(body, _PORT_FIELDS | allowed, path)
        constraints = {name: value for name, value in body.items() if name in allowed}
        description = body.get("description", "")
        if not isinstance(description, str):
            self.problem("bad-value", "expected a text", (*path, "description"))
            description = ""
        return Port(port_type, body.get("default", UNSET), description, constraints)


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[FieldInfo, ...]:
    """Kept: finding them out takes longer than reading most nodes."""
    return fields_of(struct)


def _sentence(error: msgspec.ValidationError) -> str:
    """msgspec's message without its own path, in our words."""
    text = str(error).split(" - at ")[0].replace("`", "")
    return text[:1].lower() + text[1:]
