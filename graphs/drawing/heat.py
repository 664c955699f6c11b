"""The colours of measured time, from little to much: one hue, so that the order can be seen by everybody.

On light paper the scale grows darker, on dark paper brighter. Every fill comes with the ink to write on it.
"""

from __future__ import annotations

from typing import NamedTuple


class Shade(NamedTuple):
    """Of one step of the scale."""

    fill: str
    ink: str


LIGHT = (
    Shade("#f3effe", "#1f2933"),
    Shade("#ddd0fb", "#1f2933"),
    Shade("#bfa8f4", "#1f2933"),
    Shade("#7c52d6", "#ffffff"),
    Shade("#54309f", "#ffffff"),
)
DARK = (
    Shade("#1f1b2e", "#e6eaf0"),
    Shade("#322a52", "#e6eaf0"),
    Shade("#4b3c86", "#e6eaf0"),
    Shade("#a58af0", "#14101f"),
    Shade("#d3c4ff", "#14101f"),
)
