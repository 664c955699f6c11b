"""Bindings and conditions as functions of slots."""

import pytest

from graphs.bindings import Ref, parse
from graphs.conditions import condition
from runtime.errors import NodeError
from runtime.executor.slots import ABSENT, Slots

A, B = Ref("a", "x"), Ref("b", "x")
SLOTS = Slots({A: 0, B: 1}, frozenset({B}))


@pytest.mark.parametrize(
    ("bound", "values", "got"),
    [
        ("${a.x}", [1, 2], 1),
        ("text", [1, 2], "text"),
        (["${a.x}", "${b.x}"], [1, 2], [1, 2]),
        (["${a.x}", {"b": "${b.x}"}], [1, ABSENT], [1, {"b": None}]),
        ("${b.x}", [1, ABSENT], ABSENT),
    ],
)
def test_what_is_bound(bound, values, got):
    assert SLOTS.getter(parse(bound))(values) == got


def test_a_default_stands_in_for_what_is_absent():
    get = SLOTS.getter(B, "none")
    assert (get([1, ABSENT]), get([1, 2]), get([1, None])) == ("none", 2, None)


def test_each_slot_once():
    assert SLOTS.of([parse(["${b.x}", "${a.x}"]), A]) == (1, 0)


def test_conditions_see_null_for_what_is_absent():
    holds = SLOTS.test(condition("b.x == null || b.x > a.x", {}))
    assert [holds([1, ABSENT]), holds([1, 2]), holds([3, 2])] == [True, True, False]
    with pytest.raises(NodeError, match="the condition cannot be evaluated: "):
        holds([1, "text"])
