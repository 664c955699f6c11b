"""JSON bodies decoded strictly, with errors that name the field, what it should be, and the nearest name.

msgspec reports a path (`$.messages[0].rol`) and what it wanted there; this file turns that into the `param`
and message of a `BadRequest`, and bounds what msgspec leaves open: the free-form parts of a body.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from serve_apps.gateway.errors import BadRequest

Body = TypeVar("Body")

MAX_FREE_FORM_DEPTH = 32
"""Levels of nesting in the parts of a body that no type describes (tool schemas, metadata, graph inputs)."""

_INT64 = 2**63
_PATH = re.compile(r" - at (`key` in )?`\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_NOTHING_ELSE = ("Expected `null`, got",)
"""Of fields that are known, and may only say nothing."""
_NO_SUCH_VALUE = ("Invalid value", "Invalid enum value")
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")


class BodyDecoder(Generic[Body]):
    """Decodes one kind of body. Built once; `decode` raises `BadRequest` and nothing else."""

    def __init__(self, kind: type[Body]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def decode(self, raw: bytes) -> Body:
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from None
        except (ValueError, RecursionError) as error:
            # DecodeError and UnicodeDecodeError are ValueErrors; the text of the first quotes no content.
            reason = str(error) if isinstance(error, msgspec.DecodeError) else "invalid UTF-8 or nesting"
            raise BadRequest(f"The body is not valid JSON: {reason}.", code="invalid_json") from None

    def _explain(self, text: str) -> BadRequest:
        found = _PATH.search(text)
        path = found["path"] if found else ""
        reason = text[: found.start()] if found else text
        if unknown := _UNKNOWN.match(reason):
            field = unknown["field"][:100]
            hint = suggestion(field, _fields_at(self._kind, path))
            return BadRequest(
                f"Unknown field {_join(path, field)!r}.{hint}",
                param=_join(path, field),
                code="unknown_field",
            )
        if missing := _MISSING.match(reason):
            name = _join(path, missing["field"])
            return BadRequest(f"Missing required field {name!r}.", param=name, code="missing_field")
        if reason.startswith(_NOTHING_ELSE):
            return BadRequest(
                f"{path!r} is not supported; leave it out.", param=path, code="unsupported_parameter"
            )
        where = f" at {path!r}" if path else ""
        hint = _choice(_values_at(self._kind, path)) if reason.startswith(_NO_SUCH_VALUE) else ""
        return BadRequest(
            f"Invalid value{where}: {reason[:300]}.{hint}", param=path or None, code="invalid_value"
        )


def suggestion(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` when one of the known names is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _choice(values: list[str]) -> str:
    return f" It may be {', '.join(map(repr, values))}." if values else ""


def check_free_form(value: Any, param: str) -> None:
    """Bounds a part of the body that no type describes: nesting, and whole numbers within 64 bits.

    Raises `BadRequest`.
    """
    level = [value]
    for _ in range(MAX_FREE_FORM_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif isinstance(item, int) and not -_INT64 <= item < _INT64:
                raise BadRequest(f"A number in {param!r} does not fit 64 bits.", param=param)
        if not deeper:
            return
        level = deeper
    raise BadRequest(f"{param!r} is nested deeper than {MAX_FREE_FORM_DEPTH} levels.", param=param)


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _fields_at(kind: type[Any], path: str) -> list[str]:
    """Names of the fields that the struct at a path may have."""
    return [field.encode_name for struct in _structs_at(kind, _STEP.findall(path)) for field in struct.fields]


def _values_at(kind: type[Any], path: str) -> list[str]:
    """What a field may say that has a few fixed values, or that tells the members of a union apart."""
    *steps, last = _STEP.findall(path) or [""]
    values = []
    for struct in _structs_at(kind, steps):
        if struct.tag_field == last:
            values.append(str(struct.tag))
        for field in struct.fields:
            if field.encode_name == last:
                values += [
                    str(value)
                    for each in _unfold(field.type)
                    if isinstance(each, msgspec.inspect.LiteralType)
                    for value in each.values
                ]
    return values


def _structs_at(kind: type[Any], steps: list[str]) -> list[msgspec.inspect.StructType]:
    here: list[msgspec.inspect.Type] = [msgspec.inspect.type_info(kind)]
    for step in steps:
        here = [inner for outer in here for inner in _inside(outer, step)]
    return [
        struct
        for outer in here
        for struct in _unfold(outer)
        if isinstance(struct, msgspec.inspect.StructType)
    ]


def _inside(outer: msgspec.inspect.Type, step: str) -> list[msgspec.inspect.Type]:
    inner: list[msgspec.inspect.Type] = []
    for kind in _unfold(outer):
        if isinstance(kind, msgspec.inspect.StructType):
            inner += [field.type for field in kind.fields if field.encode_name == step]
        elif isinstance(kind, msgspec.inspect.ListType) and step.startswith("["):
            inner.append(kind.item_type)
    return inner


def _unfold(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """The members of a union, without the metadata around them."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _unfold(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [member for inner in kind.types for member in _unfold(inner)]
    return [kind]
