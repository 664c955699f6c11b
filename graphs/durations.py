"""Lengths of time as people write them: `30s`, `500ms`, `2m`, `1h`, or a number of seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)")


def parse_duration(value: object) -> float:
    """Seconds. Raises `ValueError` for anything that is not a positive length of time."""
    seconds = _seconds(value)
    if seconds is None or seconds <= 0:
        raise ValueError("expected a length of time, as 30s, 500ms or 2m")
    return seconds


def parse_duration_or_0(value: object) -> float:
    """Seconds, 0 for none at all. Raises `ValueError`."""
    seconds = _seconds(value)
    if seconds is None or seconds < 0:
        raise ValueError("expected a length of time, as 30s, 500ms or 2m, or 0")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2]]
    return None
