"""What can be the value of a port."""

import pytest

from graphs.documents import Document
from runtime.values import MAX_DEPTH, larger_than, value_fault


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1, -(2**63), 2**63 - 1, 1.5, "ä", "😀", [], {}),
        [{"a": [1, "b", None]}],
        (1, 2),
        Document("1", "text"),
        nested(MAX_DEPTH - 1),
    ],
)
def test_values(value):
    assert value_fault(value) is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (2**63, "a number does not fit 64 bits"),
        ([{"a": -(2**63) - 1}], "a number does not fit 64 bits"),
        ("\ud800", "a text is not valid Unicode"),
        ({"\udfff": 1}, "a text is not valid Unicode"),
        ({1: 2}, "a field's name is no text"),
        ({1}, "a set is no value of JSON"),
        (b"x", "a bytes is no value of JSON"),
        (Document("1", object()), "a object is no value of JSON"),
        (nested(MAX_DEPTH), "values are nested deeper than 64"),
    ],
)
def test_what_is_none(value, fault):
    assert value_fault(value) == fault


def test_a_value_inside_itself():
    value: list = []
    value.append(value)
    assert value_fault(value) == "values are nested deeper than 64"


@pytest.mark.parametrize(
    ("value", "size", "larger"),
    [
        ("x" * 100, 100, False),
        ("x" * 101, 100, True),
        ([1] * 10, 100, False),
        ([1] * 13, 100, True),
        ({"name": "x" * 90}, 100, True),
        (Document("1", "x" * 50, "s"), 200, False),
        (Document("1", "x" * 250, "s"), 200, True),
    ],
)
def test_how_large_a_value_is(value, size, larger):
    assert larger_than(value, size) is larger


def test_a_value_that_holds_itself_many_times_is_not_walked_through():
    value = "x"
    for _ in range(100):
        value = [value, value]
    assert larger_than(value, 10_000)
