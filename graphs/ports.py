"""The types of ports, with JSON Schema underneath, and which value may flow into which.

    any ◄── string, boolean, null
        ◄── number ◄── integer
        ◄── object ◄── Document, Message, {name: string, age?: integer}
        ◄── list[T] (of whatever flows into T) ◄── Embedding, where T takes numbers
    optional[T] ◄── T, null
    A | B ◄── whatever flows into A or into B
    {name: string} ◄── records with a name that is a string, whatever else they have

An arrow reads "takes". Nothing else flows: an `object` is no `Document`, and an optional value does not fit a
port that needs one. `stream[T]` is a T that can be read while it is made: a text in pieces, a list item by
item. Whoever takes a T waits for its end, so for the checks the two are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

MAX_TYPE_CHARS = 1_000
MAX_TYPE_DEPTH = 8
MAX_FIELDS = 32
"""Of one record."""
MAX_MEMBERS = 8
"""Of one union."""
MAX_PARTS = 128
"""Of one type that was inferred. A larger one is said less exactly."""
MAX_COMMON = 4
"""Members of a union that was inferred."""

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
_NAMED_FIELDS = {
    "Document": "{id: string, text: string, source?: string, heading?: string, line?: integer,"
    " score?: number}",
    "Message": "{role: string, content?: optional[string | list[any]]}",
    "object": "",
}
"""What is known of the fields of a type with a name, as a record."""
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|\S")

CONSTRAINTS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"enum", "minLength", "maxLength"}),
    "integer": frozenset({"enum", "minimum", "maximum"}),
    "number": frozenset({"enum", "minimum", "maximum"}),
    "list": frozenset({"minItems", "maxItems"}),
}
"""Keywords of JSON Schema that an input may add to its type. A list that is short on purpose: no references,
which could reach the network, and no patterns, which could run for ever."""


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of a record."""

    name: str
    type: PortType
    required: bool = True

    def __str__(self) -> str:
        return f"{self.name}{'' if self.required else '?'}: {self.type}"


class PortType(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of `NAMES`; `list`, `optional` or `stream` of an item; a `union` of members; a `record` of fields.

    All but the first are made by the functions below, which see to it that equal types are equal.
    """

    name: str
    item: PortType | None = None
    members: tuple[PortType, ...] = ()
    """At least two, none of which flows into another, by their text."""
    fields: tuple[Field, ...] = ()
    """By name."""

    def __str__(self) -> str:
        if self.members:
            return " | ".join(str(member) for member in self.members)
        if self.fields:
            return "{" + ", ".join(str(field) for field in self.fields) + "}"
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
    return _bounded(PortType("list", whole(item)))


def optional(item: PortType) -> PortType:
    """The canonical form of `item | null`."""
    item = whole(item)
    return item if item == NULL or item.name == "optional" else PortType("optional", item)


def stream_of(item: PortType) -> PortType:
    return PortType("stream", whole(item))


def record_of(fields: Iterable[Field]) -> PortType:
    """A record, or `object` where it has no fields, too many, or one whose name no type can say."""
    ordered = tuple(
        Field(field.name, whole(field.type), field.required)
        for field in sorted(fields, key=lambda field: field.name)
    )
    if not 0 < len(ordered) <= MAX_FIELDS or not all(_FIELD.fullmatch(field.name) for field in ordered):
        return OBJECT
    return _bounded(PortType("record", fields=ordered))


def union_of(types: Iterable[PortType]) -> PortType:
    """The narrowest type that takes all of `types`, of which there is at least one."""
    flat = {member for port_type in types for member in _members(whole(port_type))}
    kept: list[PortType] = []
    for member in sorted(flat - {NULL}, key=str):
        if not any(assignable(member, other) for other in kept):
            kept = [*(other for other in kept if not assignable(other, member)), member]
    if not kept:
        return NULL
    made = kept[0] if len(kept) == 1 else _bounded(PortType("union", members=tuple(kept)))
    return optional(made) if NULL in flat and made != ANY else made


def common(types: Iterable[PortType]) -> PortType:
    """The narrowest type that takes all of `types`; `object` or `any` where that would be a long union."""
    distinct = list(dict.fromkeys(types))
    if not distinct:
        return ANY
    if len(distinct) > MAX_PARTS:
        return OBJECT if all(assignable(each, OBJECT) for each in distinct) else ANY
    made = union_of(distinct)
    if len(_members(made)) <= MAX_COMMON:
        return made
    return OBJECT if assignable(made, OBJECT) else ANY


def whole(port_type: PortType) -> PortType:
    """What one has at the end of a stream; any other type as it is."""
    return port_type.item if port_type.name == "stream" and port_type.item is not None else port_type


def live(port_type: PortType) -> bool:
    """Whether it is a list that nodes can read while it is made."""
    return port_type.name == "stream" and port_type.item is not None and port_type.item.name == "list"


@cache
def parse_type(text: str) -> PortType:
    """The type that `text`, such as `list[Document]`, names. Raises `ValueError` naming the part at fault."""
    if len(text) > MAX_TYPE_CHARS:
        raise ValueError(f"a type has at most {MAX_TYPE_CHARS} characters")
    return _Parser(text).parse()


def assignable(source: PortType, target: PortType) -> bool:
    """Whether every value of `source` may flow into `target`."""
    source, target = whole(source), whole(target)
    if target == ANY or source == target:
        return True
    if source.members:
        return all(assignable(member, target) for member in source.members)
    if target.name == "optional" and target.item is not None:
        inner = source.item if source.name == "optional" and source.item is not None else source
        return inner == NULL or assignable(inner, target.item)
    if target.members:
        return any(assignable(source, member) for member in target.members)
    if target.name == "list" and target.item is not None:
        if source == EMBEDDING:
            return assignable(NUMBER, target.item)
        return source.name == "list" and source.item is not None and assignable(source.item, target.item)
    if target.fields:
        return _has_fields(source, target.fields)
    if target == NUMBER:
        return source == INTEGER
    return target == OBJECT and (source in (DOCUMENT, MESSAGE) or source.name == "record")


def type_of(value: object) -> PortType:
    """The narrowest type of a JSON value, as far as it can be said shortly."""
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
            return list_of(common(type_of(item) for item in value))
        case dict() if len(value) <= MAX_FIELDS:
            return record_of(Field(str(name), type_of(item)) for name, item in value.items())
        case _:
            return OBJECT


def schema(port: Port) -> dict[str, Any]:
    """JSON Schema of what the port takes."""
    result = type_schema(port.type)
    inner = result["anyOf"][0] if whole(port.type).name == "optional" else result
    inner.update(port.constraints)
    if port.description:
        result["description"] = port.description
    if port.default is not msgspec.UNSET:
        result["default"] = port.default
    return result


def type_schema(port_type: PortType) -> dict[str, Any]:
    """JSON Schema of a type; a fresh dictionary, the caller's to extend."""
    if port_type.members:
        return {"anyOf": [type_schema(member) for member in port_type.members]}
    if port_type.fields:
        return {
            "type": "object",
            "properties": {field.name: type_schema(field.type) for field in port_type.fields},
            "required": [field.name for field in port_type.fields if field.required],
        }
    if port_type.item is None:
        return dict(_SCHEMAS[port_type.name])
    item = type_schema(port_type.item)
    match port_type.name:
        case "list":
            return {"type": "array", "items": item}
        case "optional":
            return {"anyOf": [item, {"type": "null"}]}
        case _:
            return item


def faults(port: Port, value: object) -> list[str]:
    """What is wrong with a constant given to the port. Empty when nothing is."""
    return [error.message[:200] for error in Draft202012Validator(schema(port)).iter_errors(value)]


def constraints_of(port_type: PortType) -> frozenset[str]:
    """The constraint keywords that a port of this type may carry."""
    inner = whole(port_type)
    inner = inner.item if inner.name == "optional" and inner.item is not None else inner
    return CONSTRAINTS.get(inner.name, frozenset())


def object_schema(ports: Mapping[str, Port]) -> dict[str, Any]:
    """JSON Schema of an object with a property for each port, and no others."""
    return {
        "type": "object",
        "properties": {name: schema(port) for name, port in ports.items()},
        "required": [name for name, port in ports.items() if port.required],
        "additionalProperties": False,
    }


def _members(port_type: PortType) -> tuple[PortType, ...]:
    """The types that a type is one of."""
    if port_type.name == "optional" and port_type.item is not None:
        return (*_members(port_type.item), NULL)
    return port_type.members or (port_type,)


def _has_fields(source: PortType, wanted: tuple[Field, ...]) -> bool:
    """Whether every value of `source` has the fields. One that `source` does not name may hold anything."""
    if source.name in _NAMED_FIELDS:
        text = _NAMED_FIELDS[source.name]
        source = parse_type(text) if text else source
    elif not source.fields:
        return False
    given = {field.name: field for field in source.fields}
    for field in wanted:
        own = given.get(field.name, Field(field.name, ANY, required=False))
        if (field.required and not own.required) or not assignable(own.type, field.type):
            return False
    return True


def _bounded(port_type: PortType) -> PortType:
    """The type, or a coarser one where it is too large to be said: values can be put together for ever."""
    if _depth(port_type) <= MAX_TYPE_DEPTH and _parts(port_type) <= MAX_PARTS:
        return port_type
    return {"list": PortType("list", ANY), "record": OBJECT}.get(port_type.name, ANY)


def _depth(port_type: PortType) -> int:
    inner = max(map(_depth, _inside(port_type)), default=0)
    return inner if port_type.name in ("union", "optional", "stream") else inner + 1


def _parts(port_type: PortType) -> int:
    return 1 + sum(map(_parts, _inside(port_type)))


def _inside(port_type: PortType) -> tuple[PortType, ...]:
    item = () if port_type.item is None else (port_type.item,)
    return (*item, *port_type.members, *(field.type for field in port_type.fields))


class _Parser:
    """type: one | one ..., where one is a name, generic[type] or {field: type, field?: type, ...}"""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._place = 0
        self._parts = 0

    def parse(self) -> PortType:
        is_stream = self._next == "stream"
        if is_stream:
            self._place += 1
            self._take("[")
        parsed = self._type(1)
        if is_stream:
            self._take("]")
        if self._next:
            raise ValueError(f"nothing more is expected, but there is {self._next[:64]}")
        return stream_of(parsed) if is_stream else parsed

    def _type(self, depth: int) -> PortType:
        members = [self._one(depth)]
        while self._next == "|":
            self._place += 1
            members.append(self._one(depth))
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"a union has at most {MAX_MEMBERS} members")
        return members[0] if len(members) == 1 else union_of(members)

    def _one(self, depth: int) -> PortType:
        self._parts += 1
        if depth > MAX_TYPE_DEPTH:
            raise ValueError(f"a type is nested at most {MAX_TYPE_DEPTH} deep")
        if self._parts > MAX_PARTS:
            raise ValueError(f"a type has at most {MAX_PARTS} parts")
        name = self._next
        self._place += 1
        if name == "{":
            return self._record(depth)
        if name in ("list", "optional"):
            if self._next != "[":
                raise ValueError(f"{name} needs the type of what is in it, as {name}[string]")
            self._place += 1
            item = self._type(depth + (name == "list"))
            self._take("]")
            return list_of(item) if name == "list" else optional(item)
        if name == "stream":
            raise ValueError("a stream is never inside another type")
        if name not in NAMES:
            raise ValueError(f"unknown type {name[:64]}")
        return PortType(name)

    def _record(self, depth: int) -> PortType:
        fields: dict[str, Field] = {}
        while not fields or self._next == ",":
            self._place += bool(fields)
            name = self._next
            if not _FIELD.fullmatch(name):
                raise ValueError(f"a field has a name, as {{name: string}}, and not {name[:64]}")
            if name in fields:
                raise ValueError(f"a record has two fields {name}")
            self._place += 1
            required = self._next != "?"
            self._place += not required
            self._take(":")
            fields[name] = Field(name, self._type(depth + 1), required)
        self._take("}")
        if len(fields) > MAX_FIELDS:
            raise ValueError(f"a record has at most {MAX_FIELDS} fields")
        return record_of(fields.values())

    @property
    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self, sign: str) -> None:
        if self._next != sign:
            raise ValueError(f"{sign} is expected, not {self._next[:64] or 'the end'}")
        self._place += 1
