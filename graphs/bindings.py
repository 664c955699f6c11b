"""What a port is given: a constant, a reference, or a list or record of such.

In YAML a reference is the whole of a string, `${embed.embedding}`; `${item}` is `${item.value}`. Text with
a reference inside it is refused: joining texts is what a prompt node does. Where a text needs `${` itself, it
is written `$${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from graphs.errors import Path

INPUTS = "inputs"
CONTEXT = "context"
RESERVED = frozenset({INPUTS, CONTEXT})
"""Owners of references that are not nodes, and so no names for nodes."""
VALUE = "value"
"""The port that a reference means which names none."""

_REFERENCE = re.compile(r"\$\{\s*([A-Za-z_][A-Za-z0-9_-]*)(?:\.([A-Za-z_][A-Za-z0-9_]*))?\s*\}")
_OPENING = re.compile(r"(?<!\$)\$\{")


class Literal(msgspec.Struct, frozen=True, tag="literal"):
    """A constant, as JSON has it."""

    value: Any


class Ref(msgspec.Struct, frozen=True, tag="ref", order=True):
    """The value of a port: of a node, of the pipeline's inputs, of the context, or of a local of a body."""

    owner: str
    """A node's name, `inputs`, `context`, or what a body calls something only it sees, as `item`."""
    port: str

    def __str__(self) -> str:
        return f"${{{self.owner}.{self.port}}}"


class Items(msgspec.Struct, frozen=True, tag="items"):
    """A list of which at least one item is not constant."""

    items: tuple[Binding, ...]


class Record(msgspec.Struct, frozen=True, tag="record"):
    """An object of which at least one field is not constant."""

    fields: dict[str, Binding]


Binding = Literal | Ref | Items | Record


class BadReference(ValueError):
    """A string that looks like a reference and is none. `args[0]` says what is wrong."""


def parse(data: Any) -> Binding:
    """The binding that JSON-like `data` stands for. Raises `BadReference`."""
    if isinstance(data, str):
        return _parse_text(data)
    if isinstance(data, list):
        items = tuple(parse(item) for item in data)
        constants = [item.value for item in items if isinstance(item, Literal)]
        return Literal(constants) if len(constants) == len(items) else Items(items)
    if isinstance(data, dict):
        fields = {name: parse(value) for name, value in data.items()}
        values = {name: field.value for name, field in fields.items() if isinstance(field, Literal)}
        return Literal(values) if len(values) == len(fields) else Record(fields)
    return Literal(data)


def render(binding: Binding) -> Any:
    """The JSON-like data that `parse` reads back as `binding`."""
    match binding:
        case Literal(value=value):
            return _escape(value)
        case Ref():
            return str(binding)
        case Items(items=items):
            return [render(item) for item in items]
        case Record(fields=fields):
            return {name: render(field) for name, field in fields.items()}


def references(binding: Binding) -> Iterator[Ref]:
    """Every reference in `binding`, each as often as it occurs."""
    for _, ref in located(binding, ()):
        yield ref


def located(binding: Binding, path: Path) -> Iterator[tuple[Path, Ref]]:
    """Every reference in `binding`, which stands at `path`, with its own path."""
    match binding:
        case Ref():
            yield path, binding
        case Items(items=items):
            for index, item in enumerate(items):
                yield from located(item, (*path, index))
        case Record(fields=fields):
            for name, field in fields.items():
                yield from located(field, (*path, name))
        case Literal():
            return


def _parse_text(text: str) -> Binding:
    found = _REFERENCE.fullmatch(text.strip())
    if found and not (found[2] is None and found[1] in RESERVED):
        return Ref(found[1], found[2] or VALUE)
    if not _OPENING.search(text):
        return Literal(text.replace("$${", "${"))
    if not found and _REFERENCE.search(text):
        raise BadReference("a reference must be the whole value; join texts in a prompt node")
    raise BadReference("a reference is written ${node.port}, ${inputs.name} or ${context.field}")


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {name: _escape(item) for name, item in value.items()}
    return value
