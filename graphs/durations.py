"""Lengths of time as people write them: `30s`, `500ms`, `2m`, `1h`, or a number of seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)")


def parse_duration(value: object) -> float:
    """Seconds. Raises `ValueError` for anything that is not a positive length of time."""
    seconds = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found[1]) * _UNITS[found[2]]
    if seconds <= 0:
        raise ValueError("expected a length of time, as 30s, 500ms or 2m")
    return seconds
