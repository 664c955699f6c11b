"""Lengths of time."""

import pytest

from graphs.durations import parse_duration, parse_duration_or_0


@pytest.mark.parametrize(
    ("value", "seconds"), [("30s", 30), ("500ms", 0.5), ("1.5 m", 90), ("2h", 7200), (3, 3), (0.5, 0.5)]
)
def test_parse(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "s", "-1s", "0s", 0, -2, True, None, "1d", [], "1e3s"])
def test_refused(value):
    with pytest.raises(ValueError, match="length of time"):
        parse_duration(value)


@pytest.mark.parametrize(("value", "seconds"), [(0, 0), ("0s", 0), ("0 ms", 0), ("2s", 2), (1.5, 1.5)])
def test_parse_where_none_at_all_is_a_length(value, seconds):
    assert parse_duration_or_0(value) == seconds


@pytest.mark.parametrize("value", ["", "s", "-1s", "0", -2, True, False, None, "1d", []])
def test_refused_where_none_at_all_is_a_length(value):
    with pytest.raises(ValueError, match=r"length of time.*or 0"):
        parse_duration_or_0(value)
