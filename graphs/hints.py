"""Type hints of Python as ports: what a traced pipeline and a function node take and give.

str, int, float, bool, None, Any         string, integer, number, boolean, null, any
list[T], Sequence[T], tuple[T, ...]      list[T]
A | B, Optional[T]                       unions, optional[T]
Literal["a", "b"]                        string, with these as its enum
a TypedDict                              a record; NotRequired fields may be left out
dict, Mapping, a msgspec Struct          object
Document                                 Document
Annotated[T, Meta(ge=1)]                 T with bounds and a description
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from msgspec import UNSET, Meta, Struct

from graphs.documents import Document
from graphs.ports import (
    ANY,
    BOOLEAN,
    DOCUMENT,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Field,
    Port,
    PortType,
    constraints_of,
    list_of,
    record_of,
    type_of,
    union_of,
)

_PLAIN: Mapping[Any, PortType] = {
    Any: ANY,
    object: ANY,
    None: NULL,
    type(None): NULL,
    str: STRING,
    int: INTEGER,
    float: NUMBER,
    bool: BOOLEAN,
    dict: OBJECT,
    list: list_of(ANY),
    Document: DOCUMENT,
}
_LISTS = (list, tuple, Sequence)
_STREAMS = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)
_BOUNDS = {
    "ge": ("minimum",),
    "le": ("maximum",),
    "min_length": ("minLength", "minItems"),
    "max_length": ("maxLength", "maxItems"),
}
"""Bounds of `Meta`, and the keywords of an input that say the same."""


def port_of(hint: Any, default: Any = UNSET) -> Port:
    """The port that takes what the hint says. Raises `TypeError` naming what no port can say."""
    hint, metas = _without_metas(hint)
    port_type = type_of_hint(hint)
    allowed = constraints_of(port_type)
    constraints: dict[str, Any] = {}
    if get_origin(hint) is Literal and "enum" in allowed:
        constraints["enum"] = list(get_args(hint))
    description = ""
    for meta in metas:
        description = meta.description or description
        constraints.update(_bounds(meta, allowed, port_type))
    return Port(port_type, default, description, constraints)


def type_of_hint(hint: Any) -> PortType:
    """The type that the hint says. Raises `TypeError` naming what no type of a port can say."""
    hint, _ = _without_metas(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    try:
        plain = _PLAIN.get(origin or hint) if not arguments or origin is dict else None
    except TypeError:
        plain = None
    if plain is not None:
        return plain
    if origin is Literal:
        return union_of(type_of(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return union_of(type_of_hint(each) for each in arguments)
    if origin in _LISTS and (origin is not tuple or arguments[1:] == (...,)):
        return list_of(type_of_hint(arguments[0]))
    if hint is Mapping or origin is Mapping or (isinstance(hint, type) and issubclass(hint, Struct)):
        return OBJECT
    if is_typeddict(hint):
        return record_of(fields_of(hint))
    raise TypeError(f"{getattr(hint, '__name__', hint)} is no type of a port")


def item_hint(hint: Any) -> Any:
    """What is said of the items of something that comes one by one, as by `AsyncIterator[T]`; else `None`."""
    hint, _ = _without_metas(hint)
    arguments = get_args(hint)
    return arguments[0] if get_origin(hint) in _STREAMS and arguments else None


def listed_hint(hint: Any) -> Any:
    """What is said of the items of a list, as by `list[T]`; else `None`."""
    hint, _ = _without_metas(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    return arguments[0] if origin in (list, Sequence) and arguments else None


def without_errors(hint: Any) -> Any:
    """`T` of `T | ValueError`: exceptions in the place of values flow to nobody."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    values = [each for each in get_args(hint) if not (isinstance(each, type) and issubclass(each, Exception))]
    return functools.reduce(operator.or_, values) if values else hint


def _without_metas(hint: Any) -> tuple[Any, list[Meta]]:
    """The hint without what is annotated, and the `Meta`s, outermost last."""
    metas: list[Meta] = []
    while True:
        if get_origin(hint) is Annotated:
            metas = [*(meta for meta in hint.__metadata__ if isinstance(meta, Meta)), *metas]
            hint = hint.__origin__
        elif get_origin(hint) in (Required, NotRequired):
            (hint,) = get_args(hint)
        else:
            return hint, metas


def _bounds(meta: Meta, allowed: frozenset[str], port_type: PortType) -> Iterator[tuple[str, Any]]:
    for name in ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz"):
        value = getattr(meta, name)
        if value is None:
            continue
        keyword = next((word for word in _BOUNDS.get(name, ()) if word in allowed), None)
        if keyword is None:
            raise TypeError(f"a {port_type} that is an input has no bound {name}")
        yield keyword, value


def fields_of(hint: Any) -> list[Field]:
    """The fields of a TypedDict or NamedTuple. Raises `TypeError` naming what no type of a port can say.

    What `Required` and the like say goes first: Python overlooks them in hints that are texts.
    """
    fields = get_type_hints(hint, include_extras=True)
    said = {Required: True, NotRequired: False}
    sure = getattr(hint, "__required_keys__", fields)
    return [
        Field(name, type_of_hint(each), said.get(get_origin(each), name in sure))
        for name, each in fields.items()
    ]
