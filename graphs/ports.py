"""The types of ports, with JSON Schema underneath, and which value may flow into which.

    any ◄── string, boolean, null
        ◄── number ◄── integer
        ◄── object ◄── Document, Message
        ◄── list[T] (of whatever flows into T) ◄── Embedding, where T takes numbers
    optional[T] ◄── T, null

An arrow reads "takes". Nothing else flows: an `object` is no `Document`, and an optional value does not fit a
port that needs one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

MAX_TYPE_DEPTH = 8

_SCHEMAS: dict[str, dict[str, Any]] = {
    "any": {},
    "null": {"type": "null"},
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "Document": {
        "type": "object",
        "title": "Document",
        "properties": {
            "id": {"type": "string"},
            "text": {"type": "string"},
            "source": {"type": "string"},
            "heading": {"type": "string"},
            "line": {"type": "integer"},
            "score": {"type": "number"},
        },
        "required": ["id", "text"],
    },
    "Message": {
        "type": "object",
        "title": "Message",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {"type": ["string", "array", "null"]},
        },
        "required": ["role"],
    },
    "Embedding": {"type": "array", "title": "Embedding", "items": {"type": "number"}, "minItems": 1},
}

NAMES = frozenset(_SCHEMAS)
_GENERIC = ("list", "optional")
_TYPE = re.compile(r"(list|optional)\[(.*)\]")

CONSTRAINTS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"enum", "minLength", "maxLength"}),
    "integer": frozenset({"enum", "minimum", "maximum"}),
    "number": frozenset({"enum", "minimum", "maximum"}),
    "list": frozenset({"minItems", "maxItems"}),
}
"""Keywords of JSON Schema that an input may add to its type. A list that is short on purpose: no references,
which could reach the network, and no patterns, which could run for ever."""


class PortType(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of `NAMES`, or `list` or `optional` of an item."""

    name: str
    item: PortType | None = None

    def __str__(self) -> str:
        return self.name if self.item is None else f"{self.name}[{self.item}]"


ANY = PortType("any")
NULL = PortType("null")
STRING = PortType("string")
INTEGER = PortType("integer")
NUMBER = PortType("number")
BOOLEAN = PortType("boolean")
OBJECT = PortType("object")
DOCUMENT = PortType("Document")
MESSAGE = PortType("Message")
EMBEDDING = PortType("Embedding")


class Port(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node or a pipeline takes in one place."""

    type: PortType
    default: Any = msgspec.UNSET
    """The value when none is given. Absent when one must be."""
    description: str = ""
    constraints: dict[str, Any] = {}
    """Keywords of `CONSTRAINTS` for the type."""

    @property
    def required(self) -> bool:
        return self.default is msgspec.UNSET and self.type.name != "optional"


def list_of(item: PortType) -> PortType:
    return PortType("list", item)


def optional(item: PortType) -> PortType:
    return PortType("optional", item)


@cache
def parse_type(text: str) -> PortType:
    """The type that `text`, such as `list[Document]`, names. Raises `ValueError` naming the part at fault."""
    return _parse(text.strip(), MAX_TYPE_DEPTH)


def assignable(source: PortType, target: PortType) -> bool:
    """Whether every value of `source` may flow into `target`."""
    if target == ANY or source == target:
        return True
    if target.name == "optional" and target.item is not None:
        inner = source.item if source.name == "optional" and source.item is not None else source
        return inner == NULL or assignable(inner, target.item)
    if target.name == "list" and target.item is not None:
        if source == EMBEDDING:
            return assignable(NUMBER, target.item)
        return source.name == "list" and source.item is not None and assignable(source.item, target.item)
    if target == NUMBER:
        return source == INTEGER
    return target == OBJECT and source in (DOCUMENT, MESSAGE)


def type_of(value: object) -> PortType:
    """The narrowest type of a JSON value. The items of a list are `any` where they differ."""
    match value:
        case None:
            return NULL
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return NUMBER
        case str():
            return STRING
        case list():
            return list_of(common([type_of(item) for item in value]))
        case _:
            return OBJECT


def common(types: list[PortType]) -> PortType:
    """The narrowest of `types` that takes them all, else `any`."""
    if not types:
        return ANY
    return next((wide for wide in types if all(assignable(other, wide) for other in types)), ANY)


def schema(port: Port) -> dict[str, Any]:
    """JSON Schema of what the port takes."""
    result = type_schema(port.type)
    inner = result["anyOf"][0] if port.type.name == "optional" else result
    inner.update(port.constraints)
    if port.description:
        result["description"] = port.description
    if port.default is not msgspec.UNSET:
        result["default"] = port.default
    return result


def type_schema(port_type: PortType) -> dict[str, Any]:
    """JSON Schema of a type; a fresh dictionary, the caller's to extend."""
    if port_type.item is None:
        return dict(_SCHEMAS[port_type.name])
    item = type_schema(port_type.item)
    return (
        {"type": "array", "items": item} if port_type.name == "list" else {"anyOf": [item, {"type": "null"}]}
    )


def faults(port: Port, value: object) -> list[str]:
    """What is wrong with a constant given to the port. Empty when nothing is."""
    return [error.message[:200] for error in Draft202012Validator(schema(port)).iter_errors(value)]


def constraints_of(port_type: PortType) -> frozenset[str]:
    """The constraint keywords that a port of this type may carry."""
    inner = port_type.item if port_type.name == "optional" and port_type.item is not None else port_type
    return CONSTRAINTS.get(inner.name, frozenset())


def _parse(text: str, depth: int) -> PortType:
    if depth == 0:
        raise ValueError(f"a type is nested at most {MAX_TYPE_DEPTH} deep")
    found = _TYPE.fullmatch(text)
    if found:
        return PortType(found[1], _parse(found[2].strip(), depth - 1))
    if text in _GENERIC:
        raise ValueError(f"{text} needs the type of what is in it, as {text}[string]")
    if text not in NAMES:
        raise ValueError(f"unknown type {text[:64]}")
    return PortType(text)


def object_schema(ports: Mapping[str, Port]) -> dict[str, Any]:
    """JSON Schema of an object with a property for each port, and no others."""
    return {
        "type": "object",
        "properties": {name: schema(port) for name, port in ports.items()},
        "required": [name for name, port in ports.items() if port.required],
        "additionalProperties": False,
    }
