"""What can be the value of a port, JSON and structs that stand for records, and how large it is."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_DEPTH = 64
_INT64 = 2**63


def value_fault(value: Any) -> str | None:
    """Why a value cannot go through a graph, in words that quote nothing of it; None where it can."""
    level = [value]
    for _ in range(MAX_DEPTH):
        fault = next((fault for item in level if (fault := _fault(item)) is not None), None)
        if fault is not None:
            return fault
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return None
    return f"values are nested deeper than {MAX_DEPTH}"


def larger_than(value: Any, size: int) -> bool:
    """Whether a value would take more than so many bytes as JSON, roughly: texts, and 8 for anything else.

    Looks at no more of it than that, however often it holds the same value.
    """
    stack = [value]
    while stack:
        item = stack.pop()
        size -= len(item) if isinstance(item, str) else 8
        if size < 0:
            return True
        inner = _inside(item)
        if 8 * (len(stack) + len(inner)) > size:
            return True
        stack += inner
    return False


def _fault(item: Any) -> str | None:
    match item:
        case int():
            return None if -_INT64 <= item < _INT64 else "a number does not fit 64 bits"
        case str():
            plain = item.isascii() or not any("\ud800" <= char <= "\udfff" for char in item)
            return None if plain else "a text is not valid Unicode"
        case dict():
            return None if all(isinstance(key, str) for key in item) else "a field's name is no text"
        case None | float() | list() | tuple() | msgspec.Struct():
            return None
    return f"a {type(item).__name__} is no value of JSON"


def _inside(item: Any) -> list[Any]:
    match item:
        case list() | tuple():
            return list(item)
        case dict():
            return [*item, *item.values()]
        case msgspec.Struct():
            return [getattr(item, name) for name in item.__struct_fields__]
    return []
