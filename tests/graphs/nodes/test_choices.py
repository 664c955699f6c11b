"""How much a choice may cost."""

import msgspec
import pytest

from graphs.nodes.choices import Choices, choice_bound
from graphs.nodes.spec import TokenBound


def test_the_answer_is_bound_by_the_bytes_of_the_longest_name():
    assert choice_bound(100, ["a", "abc"]) == TokenBound(100, 5 + 24)
    assert choice_bound(100, ["é"]) == TokenBound(100, 4 + 24)
    assert choice_bound(100, ['"']) == TokenBound(100, 4 + 24)


@pytest.mark.parametrize(
    "choices",
    [
        {"only": "one"},
        {f"c{index}": "x" for index in range(33)},
        {"": "x", "b": "x"},
        {"a" * 65: "x", "b": "x"},
        {"a": "", "b": "x"},
    ],
)
def test_choices_out_of_bounds(choices):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(choices, Choices)
