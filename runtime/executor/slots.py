"""Where the values of a run are kept: every value that somebody needs has a slot, a number.

    inputs.question: slot 0     vector.embedding: slot 1     search.documents: slot 2 …

A binding becomes a function of the slots, a condition a test of them. What is absent is null inside a list or
record, and where a condition looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from operator import itemgetter
from typing import Any, NamedTuple

from graphs.bindings import Binding, Items, Literal, Record, Ref, references
from graphs.conditions import Condition, ConditionError, operands_of, predicate_of
from runtime.errors import NodeError

Values = list[Any]
"""By slot."""
Getter = Callable[[Values], Any]
Test = Callable[[Values], bool]
"""Raises `NodeError`."""

ABSENT: Any = object()
"""What is in the slot of an output of a node that was skipped."""
PENDING: Any = object()
"""What is in the slot of an output of a node that is not done."""


class Slots(NamedTuple):
    """The values that the nodes of a body refer to."""

    numbers: Mapping[Ref, int]
    absent: Set[Ref]
    """Those that may be absent."""

    def of(self, bindings: Iterable[Binding]) -> tuple[int, ...]:
        """The slots that they look at, each once."""
        return tuple({self.numbers[ref]: None for binding in bindings for ref in references(binding)})

    def getter(self, binding: Binding, default: Any = ABSENT) -> Getter:
        """Gets what was bound; `default` where it is absent."""
        get = self._getter(binding)
        if default is ABSENT or not isinstance(binding, Ref) or binding not in self.absent:
            return get

        def get_or(values: Values) -> Any:
            value = get(values)
            return default if value is ABSENT else value

        return get_or

    def test(self, condition: Condition) -> Test:
        """Whether the condition holds."""
        holds = predicate_of(condition)
        looks_at = [self.getter(each, None) for each in operands_of(condition)]

        def test(values: Values) -> bool:
            try:
                return holds([get(values) for get in looks_at])
            except ConditionError as error:
                raise NodeError(f"the condition cannot be evaluated: {error}") from error

        return test

    def _getter(self, binding: Binding) -> Getter:
        match binding:
            case Ref():
                return itemgetter(self.numbers[binding])
            case Literal(value=value):
                return lambda _values: value
            case Items(items=items):
                getters = [self.getter(item, None) for item in items]
                return lambda values: [get(values) for get in getters]
            case Record(fields=fields):
                named = [(name, self.getter(item, None)) for name, item in fields.items()]
                return lambda values: {name: get(values) for name, get in named}
