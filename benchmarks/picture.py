"""Bars as SVG: one group a case, one bar an arm, lengths relative to the longest of the group.

Drawn by hand in fifty lines rather than with a plotting library, which would be the largest dependency of
`benchmarks`, and whose files change with its versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABEL, VALUE = 760, 150, 110
ROW, GAP, TOP = 20, 18, 34
OURS, OTHERS = "#2563eb", "#94a3b8"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1e293b}"
    ".title{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}}"
)


class Bar(NamedTuple):
    """One arm."""

    label: str
    value: float
    shown: str
    """The value as it is written."""
    ours: bool


class Group(NamedTuple):
    """One case."""

    title: str
    bars: Sequence[Bar]


def bars_svg(title: str, groups: Sequence[Group]) -> str:
    """The picture. Lengths are shares of the longest bar of their group."""
    parts = []
    y = TOP
    for group in groups:
        y += GAP
        parts.append(_text(0, y, group.title, "title"))
        y += 8
        longest = max((bar.value for bar in group.bars), default=0.0) or 1.0
        for bar in group.bars:
            parts.append(_bar(y, bar, bar.value / longest))
            y += ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + GAP}" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>'
    )
    return "\n".join([head, _text(0, 16, title, "title"), *parts, "</svg>"]) + "\n"


def _bar(y: int, bar: Bar, share: float) -> str:
    length = max(1.0, share * (WIDTH - LABEL - VALUE))
    colour = OURS if bar.ours else OTHERS
    return "".join(
        (
            _text(0, y + 14, bar.label),
            f'<rect x="{LABEL}" y="{y + 3}" width="{length:.1f}" height="{ROW - 6}" rx="2" fill="{colour}"/>',
            _text(LABEL + length + 6, y + 14, bar.shown),
        )
    )


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{named}>{escape(text)}</text>'
