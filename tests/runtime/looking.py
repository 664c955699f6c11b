"""What a binding is worth in the plain interpreters that runs are compared with."""

from __future__ import annotations

from typing import Any

from graphs.bindings import Binding, Items, Literal, Record, Ref

ABSENT: Any = object()
Values = dict[Ref, Any]


def look(binding: Binding, values: Values) -> Any:
    match binding:
        case Literal(value=value):
            return value
        case Ref():
            return None if values[binding] is ABSENT else values[binding]
        case Items(items=items):
            return [look(item, values) for item in items]
        case Record(fields=fields):
            return {name: look(item, values) for name, item in fields.items()}
