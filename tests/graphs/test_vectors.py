"""Arithmetic of vectors."""

import pytest

from graphs.vectors import similarity


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1, 0], [2, 0], 1), ([1, 0], [0, 3], 0), ([1, 1], [-2, -2], -1), ([1, 0], [1, 1], 0.7071)],
)
def test_similarity(first, second, expected):
    assert similarity(first, second) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("second", "message"), [([1.0], "2 and 1 numbers"), ([0.0, 0.0], "no direction")])
def test_what_cannot_be_compared(second, message):
    with pytest.raises(ValueError, match=message):
        similarity([1.0, 2.0], second)
