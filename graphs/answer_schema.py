"""The part of JSON Schema that an author may hold a model's answer to.

Small on purpose. What is in it every engine can enforce while it writes, and checking an answer against it
ends soon: no references but to `$defs` of the schema itself and none that go round, no patterns, which could
run for ever, and bounds on size, depth and on what all references together expand to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from graphs.errors import Path, nearest
from graphs.ports import (
    ANY,
    BOOLEAN,
    INTEGER,
    MAX_TYPE_DEPTH,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Field,
    PortType,
    common,
    list_of,
    record_of,
    type_of,
)

Schema = Mapping[str, Any]

MAX_BYTES = 16 * 1024
"""Of the schema as JSON."""
MAX_DEPTH = 16
"""Of schemas inside schemas, references followed."""
MAX_SCHEMAS = 1_000
"""Schemas inside a schema, each counted as often as it is referred to."""
MAX_COUNT = 8_192
"""Largest `maxLength`, `maxItems` and the like."""
MAX_FAULTS = 20

_NAMED = ("properties", "$defs")
"""Keywords that hold schemas by name."""
_LISTED = ("anyOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_OTHERS = (
    *("type", "enum", "const", "required", "format", "$ref"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("title", "description", "default", "examples"),
)
KEYWORDS = frozenset({*_NAMED, *_LISTED, *_SINGLE, *_COUNTS, *_OTHERS})
FORMATS = frozenset(
    {
        *("date", "date-time", "duration", "email", "hostname"),
        *("ipv4", "ipv6", "time", "uri", "uuid"),
    }
)
_SCALARS = {
    "string": STRING,
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": BOOLEAN,
    "null": NULL,
    "object": OBJECT,
}
_DEFINITION = "#/$defs/"
_META = Draft202012Validator(Draft202012Validator.META_SCHEMA)


class SchemaFault(msgspec.Struct, frozen=True):
    """A mistake in a schema."""

    message: str
    path: Path = ()
    """Inside the schema."""
    on_key: bool = False
    hint: str | None = None


class AnswerSchema:
    """A schema that was read: what is wrong with it, or else what fits it."""

    def __init__(self, schema: Schema) -> None:
        self.faults: tuple[SchemaFault, ...] = tuple(_faults(schema))
        """What keeps it from being used. Empty when nothing does."""
        self.type: PortType = ANY if self.faults else _type(schema, schema.get("$defs", {}))
        """Of what fits it."""
        self._validator = Draft202012Validator({} if self.faults else schema)

    def misfit(self, value: object) -> str | None:
        """Why a value does not fit, with its place; None where it does."""
        return misfit(self._validator, value)


def misfit(validator: Draft202012Validator, value: object) -> str | None:
    """Why a value does not fit, with its place; None where it does."""
    error = best_match(validator.iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message[:200]}"


def read_schema(schema: Schema) -> AnswerSchema:
    """The schema, read once."""
    return _read(msgspec.json.encode(schema))


@lru_cache(maxsize=512)
def _read(encoded: bytes) -> AnswerSchema:
    return AnswerSchema(msgspec.json.decode(encoded))


def _faults(schema: Schema) -> list[SchemaFault]:
    if len(msgspec.json.encode(schema)) > MAX_BYTES:
        return [SchemaFault(f"the schema is larger than {MAX_BYTES} bytes")]
    faults = list(_keyword_faults(schema))
    if not faults:
        errors = {tuple(error.absolute_path): error.message for error in _META.iter_errors(schema)}
        faults = [SchemaFault(message[:200], path) for path, message in errors.items()]
    return (faults or list(_expansion_faults(schema)))[:MAX_FAULTS]


def _keyword_faults(schema: Schema) -> Iterator[SchemaFault]:
    """Words that the language does not have, and values of those it has that are out of bounds."""
    stack: list[tuple[Path, Any]] = [((), schema)]
    while stack:
        path, part = stack.pop()
        if not isinstance(part, dict):
            continue
        for keyword, value in part.items():
            if keyword not in KEYWORDS or (keyword == "$defs" and path):
                hint = nearest(keyword, KEYWORDS) if keyword not in KEYWORDS else "define it at the top"
                message = f"{keyword} cannot stand here in the schema of an answer"
                yield SchemaFault(message, (*path, keyword), on_key=True, hint=hint)
            elif keyword in _COUNTS and isinstance(value, int | float) and value > MAX_COUNT:
                yield SchemaFault(f"{keyword} is at most {MAX_COUNT}", (*path, keyword))
            elif keyword == "format" and value not in FORMATS:
                message = f"no engine knows the format {value!s:.40}"
                yield SchemaFault(message, (*path, keyword), hint=nearest(str(value), FORMATS))
            elif keyword == "enum" and value == []:
                yield SchemaFault("nothing fits an empty enum", (*path, keyword))
        yield from _required_faults(path, part)
        if len(path) <= 2 * MAX_DEPTH:
            stack += [((*path, *place), inner) for place, inner in _inner(part)]
        else:
            yield SchemaFault(f"schemas stand at most {MAX_DEPTH} deep inside each other")
            return


def _required_faults(path: Path, part: Schema) -> Iterator[SchemaFault]:
    """Names that are required, but no property: nothing with a closed list of properties would fit."""
    properties, required = part.get("properties"), part.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return
    for index, name in enumerate(required):
        if isinstance(name, str) and name not in properties:
            hint = nearest(name, properties)
            yield SchemaFault(f"{name} is required, but no property", (*path, "required", index), hint=hint)


def _inner(part: Schema) -> Iterator[tuple[Path, Any]]:
    """The schemas directly inside one, and where they stand."""
    for keyword, value in part.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from (((keyword, name), inner) for name, inner in value.items())
        elif keyword in _LISTED and isinstance(value, list):
            yield from (((keyword, index), inner) for index, inner in enumerate(value))
        elif keyword in _SINGLE:
            yield (keyword,), value


class _Expansion:
    """Counts what a schema expands to when its references are followed, each definition once."""

    def __init__(self, schema: Schema) -> None:
        self._definitions: Schema = schema.get("$defs", {})
        self._known: dict[str, tuple[int, int]] = {}
        self._open: list[str] = []

    def measure(self, part: Any, path: Path) -> tuple[int, int]:
        """How many schemas, and how deep. Raises `_BadReference`."""
        if not isinstance(part, dict):
            return 1, 1
        sizes = [self.measure(inner, (*path, *place)) for place, inner in _inner(part) if place[0] != "$defs"]
        if "$ref" in part:
            sizes.append(self._definition(part["$ref"], (*path, "$ref")))
        count = 1 + sum(size for size, _ in sizes)
        return min(count, MAX_SCHEMAS + 1), 1 + max((depth for _, depth in sizes), default=0)

    def _definition(self, reference: str, path: Path) -> tuple[int, int]:
        name = reference.removeprefix(_DEFINITION)
        if not reference.startswith(_DEFINITION) or name not in self._definitions:
            known = [_DEFINITION + each for each in self._definitions]
            message = f"there is no {reference[:80]} in this schema"
            raise _BadReference(SchemaFault(message, path, hint=nearest(reference, known)))
        if name in self._open:
            way = " → ".join([*self._open[self._open.index(name) :], name])
            raise _BadReference(SchemaFault(f"definitions go round: {way}", path))
        if name not in self._known:
            self._open.append(name)
            self._known[name] = self.measure(self._definitions[name], ("$defs", name))
            self._open.pop()
        return self._known[name]


class _BadReference(Exception):
    def __init__(self, fault: SchemaFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _expansion_faults(schema: Schema) -> Iterator[SchemaFault]:
    """References that lead nowhere or round, and bombs."""
    expansion = _Expansion(schema)
    parts: dict[Path, Any] = {(): schema}
    parts |= {("$defs", name): part for name, part in schema.get("$defs", {}).items()}
    for path, part in parts.items():
        try:
            count, depth = expansion.measure(part, path)
        except _BadReference as bad:
            yield bad.fault
            return
        if count > MAX_SCHEMAS:
            yield SchemaFault(f"the schema expands to more than {MAX_SCHEMAS} schemas", path)
            return
        if depth > MAX_DEPTH:
            yield SchemaFault(f"schemas stand at most {MAX_DEPTH} deep inside each other", path)
            return


def _type(part: Any, definitions: Schema, depth: int = MAX_TYPE_DEPTH) -> PortType:
    if not isinstance(part, dict) or depth == 0:
        return ANY
    if "$ref" in part:
        return _type(definitions[part["$ref"].removeprefix(_DEFINITION)], definitions, depth)
    if "const" in part:
        return type_of(part["const"])
    if "enum" in part:
        return common([type_of(value) for value in part["enum"]])
    if "anyOf" in part:
        return common([_type(each, definitions, depth - 1) for each in part["anyOf"]])
    names = part.get("type", [])
    if names == "object" and "properties" in part:
        needed = part.get("required", ())
        return record_of(
            Field(name, _type(each, definitions, depth - 1), name in needed)
            for name, each in part["properties"].items()
        )
    if names == "array":
        return list_of(_type(part.get("items"), definitions, depth - 1))
    return common([_SCALARS.get(name, ANY) for name in ([names] if isinstance(names, str) else names)])
