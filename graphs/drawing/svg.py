"""A picture as an SVG file of its own, in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from graphs.drawing.heat import DARK, LIGHT, Shade
from graphs.drawing.layout import Layout, Size, arrange
from graphs.drawing.picture import Arrow, Box, Picture

MAX_BOXES = 600
"""More than anybody can look at."""

MAX_LABEL_CHARS = 30
_LETTER, _SMALL = 8.2, 6.2
"""Widths of an average letter, in pixels."""
_EDGE, _TITLE = 10.0, 20.0
"""Around what is inside a box, and above it for its title."""
_STYLE = """
  svg { --paper: #ffffff; --ink: #1f2933; --soft: #6b7785; --line: #a3adb8; --box: #f5f7fa; --edge: #c5ced8;
    --model: #e8efff; --model-edge: #7a9cf5; --outside: #eef7f0; --outside-edge: #8bbf9b;
    --hot: #d9480f; --group: #fff1d6; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --ink: #e6eaf0; --soft: #97a3b1; --line: #5d6977; --box: #1d242d; --edge: #3a4552;
      --model: #1c2a4a; --model-edge: #5b7fe0; --outside: #17281d; --outside-edge: #4d8a60;
      --hot: #ff8a4c; --group: #33290f; } }
  .paper { fill: var(--paper) }
  text { font: 13px system-ui, sans-serif; fill: var(--ink); text-anchor: middle }
  .title { font-weight: 600 } .small { font-size: 11px; fill: var(--soft) }
  .label { font-size: 10.5px; fill: var(--soft);
    stroke: var(--paper); stroke-width: 4px; paint-order: stroke }
  .node { fill: var(--box); stroke: var(--edge); stroke-width: 1.2 }
  .model { fill: var(--model); stroke: var(--model-edge) }
  .body { fill: var(--paper) } .frame { fill: var(--box) }
  .outside { fill: var(--outside); stroke: var(--outside-edge); stroke-width: 1.2 }
  .skipped { stroke-dasharray: 5 4 }
  .hot { stroke: var(--hot); stroke-width: 2.2 }
  .edge { fill: none; stroke: var(--line); stroke-width: 1.4 } .dotted { stroke-dasharray: 2 4 }
  .dashed { stroke-dasharray: 9 5 }
  .edge.hot { stroke: var(--hot); stroke-width: 2.2 }
  .tip { fill: var(--line) } .tip.hot { fill: var(--hot); stroke: none }
  .group { fill: var(--group); stroke: var(--group); stroke-width: 18; stroke-linejoin: round }
  .tie { fill: none; stroke: var(--group); stroke-width: 26 }
"""


def _heats(shades: Sequence[Shade]) -> str:
    steps = (f"--heat{step}: {shade.fill}; --on{step}: {shade.ink}" for step, shade in enumerate(shades))
    return f"svg {{ {'; '.join(steps)} }}"


_HEAT_STYLE = "\n".join(
    [
        f"  {_heats(LIGHT)}",
        f"  @media (prefers-color-scheme: dark) {{ {_heats(DARK)} }}",
        *(
            f"  .heat{step} {{ fill: var(--heat{step}) }} text.on{step} {{ fill: var(--on{step}) }}"
            for step in range(len(LIGHT))
        ),
        "",
    ]
)
"""Only of pictures that are measured."""


class TooLarge(ValueError):
    """More boxes than can be drawn."""


class Drawn(NamedTuple):
    """Parts of the file that show a picture, from its own top left."""

    parts: Sequence[str]
    width: float
    height: float


def svg(picture: Picture) -> str:
    """The file. Boxes of one step share a ground, the critical path is warm. Raises `TooLarge`."""
    every = list(picture.everything())
    if len(every) > MAX_BOXES:
        raise TooLarge(f"{len(every)} boxes are too many for a drawing, it takes {MAX_BOXES}")
    drawn = _drawn(picture, margin=24)
    width, height = f"{drawn.width:.0f}", f"{drawn.height:.0f}"
    title = escape(picture.title)
    heats = _HEAT_STYLE if any(box.heat is not None for box in every) else ""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
            f' height="{height}" role="img">',
            f"<title>{title}</title>",
            f"<desc>The graph {title}: {len(every)} boxes, {_arrows(picture)} arrows.</desc>",
            f"<style>{_STYLE}{heats}</style>",
            f'<rect class="paper" width="{width}" height="{height}" rx="10"/>',
            *drawn.parts,
            "</svg>\n",
        ]
    )


def _arrows(picture: Picture) -> int:
    return len(picture.arrows) + sum(_arrows(inner) for box in picture.boxes for inner in box.inside)


def _drawn(picture: Picture, margin: float) -> Drawn:
    """A picture, the boxes with others inside them as large as these need."""
    inner = {box.id: [_drawn(each, margin=14) for each in box.inside] for box in picture.boxes}
    sizes = {box.id: _size(box, inner[box.id]) for box in picture.boxes}
    edges = [(arrow.source, arrow.target) for arrow in picture.arrows]
    rooms = [len(_short(arrow.label)) * _SMALL for arrow in picture.arrows]
    layout = arrange(sizes, edges, rooms=rooms, margin=margin)
    paths = [
        _path(arrow, way, layout, sizes) for arrow, way in zip(picture.arrows, layout.routes, strict=True)
    ]
    parts = [
        *_groups(picture, layout, sizes, [path for path, _ in paths]),
        *(_edge(arrow, path) for arrow, (path, _) in zip(picture.arrows, paths, strict=True)),
        *(_box(box, layout.places[box.id], sizes[box.id], inner[box.id]) for box in picture.boxes),
        *_labels(picture.arrows, [middle for _, middle in paths]),
    ]
    return Drawn(parts, layout.width, layout.height)


def _short(label: str) -> str:
    return label if len(label) <= MAX_LABEL_CHARS else label[: MAX_LABEL_CHARS - 1] + "…"


def _size(box: Box, inner: Sequence[Drawn]) -> Size:
    widest = max([len(box.title) * _LETTER, *(len(line) * _SMALL for line in box.lines)])
    width = max(72.0, widest + 28, *(each.width + 2 * _EDGE for each in inner))
    titles = sum(_TITLE for each in box.inside if each.title)
    below = titles + sum(each.height + _EDGE for each in inner)
    return Size(width, _head(box) + below)


def _head(box: Box) -> float:
    """Height of the lines of a box."""
    return 22.0 + 18 * len(box.lines) + 10


Middle = tuple[float, float]


def _path(
    arrow: Arrow, way: Sequence[tuple[float, float]], layout: Layout, sizes: dict[str, Size]
) -> tuple[str, Middle]:
    """The curve of an arrow, and the middle of its first stretch."""
    x, y = layout.places[arrow.source]
    end_x, end_y = layout.places[arrow.target]
    points = [
        (x + sizes[arrow.source].width / 2, y),
        *way,
        (end_x - sizes[arrow.target].width / 2 - 7, end_y),
    ]
    pieces = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (from_x, from_y), (to_x, to_y) in zip(points[::2], points[1::2], strict=True):
        half = (from_x + to_x) / 2
        pieces.append(f"L{from_x:.1f} {from_y:.1f}")
        pieces.append(f"C{half:.1f} {from_y:.1f} {half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    (first_x, first_y), (next_x, next_y) = points[0], points[1]
    return " ".join(pieces), ((first_x + next_x) / 2, (first_y + next_y) / 2)


def _edge(arrow: Arrow, path: str) -> str:
    looks = ["edge", *(["hot"] if arrow.critical else []), *([] if arrow.data else ["dotted"])]
    looks += ["dashed"] if arrow.live else []
    x, y = path.split()[-2:]
    tip = "tip hot" if arrow.critical else "tip"
    return (
        f'<path class="{" ".join(looks)}" d="{path}"/>'
        f'<path class="{tip}" d="M{x} {float(y) - 4:.1f} l7.5 4 l-7.5 4 z"/>'
    )


def _box(box: Box, place: tuple[float, float], size: Size, inner: Sequence[Drawn]) -> str:
    x, y = place
    left, top = x - size.width / 2, y - size.height / 2
    looks = ["node", *(["model"] if box.calls_model else [])] if box.role == "node" else ["outside"]
    looks += ["frame"] if inner else []
    looks += ["hot"] if box.critical else []
    looks += ["skipped"] if box.skipped else []
    looks += [] if box.heat is None else [f"heat{box.heat}"]
    ink = "" if box.heat is None else f" on{box.heat}"
    radius = 8 if box.role == "node" else size.height / 2
    rows = [f'<text class="title{ink}" x="{x:.1f}" y="{top + 20:.1f}">{escape(box.title)}</text>']
    rows += [
        f'<text class="small{ink}" x="{x:.1f}" y="{top + 38 + 16 * index:.1f}">{escape(line)}</text>'
        for index, line in enumerate(box.lines)
    ]
    return (
        f'<rect class="{" ".join(looks)}" x="{left:.1f}" y="{top:.1f}" width="{size.width:.1f}"'
        f' height="{size.height:.1f}" rx="{radius:.1f}"/>' + "".join(rows) + _inside(box, place, size, inner)
    )


def _inside(box: Box, place: tuple[float, float], size: Size, inner: Sequence[Drawn]) -> str:
    """The pictures inside a box, one below the other on paper of their own, with their titles."""
    x, y = place
    top = y - size.height / 2 + _head(box)
    parts = []
    for picture, drawn in zip(box.inside, inner, strict=True):
        if picture.title:
            parts.append(f'<text class="small" x="{x:.1f}" y="{top + 12:.1f}">{escape(picture.title)}</text>')
            top += _TITLE
        left = x - drawn.width / 2
        parts.append(
            f'<g transform="translate({left:.1f} {top:.1f})"><rect class="body" width="{drawn.width:.1f}"'
            f' height="{drawn.height:.1f}" rx="6"/>' + "".join(drawn.parts) + "</g>"
        )
        top += drawn.height + _EDGE
    return "".join(parts)


def _groups(picture: Picture, layout: Layout, sizes: dict[str, Size], paths: Sequence[str]) -> list[str]:
    """A ground below the boxes of each step of several nodes, and along the arrows between them."""
    group = {box.id: box.group for box in picture.boxes if box.group is not None}
    ties = [
        f'<path class="tie" d="{path}"/>'
        for arrow, path in zip(picture.arrows, paths, strict=True)
        if arrow.source in group and group[arrow.source] == group.get(arrow.target)
    ]
    grounds = []
    for name in group:
        (x, y), size = layout.places[name], sizes[name]
        grounds.append(
            f'<rect class="group" x="{x - size.width / 2:.1f}" y="{y - size.height / 2:.1f}"'
            f' width="{size.width:.1f}" height="{size.height:.1f}" rx="4"/>'
        )
    return [*ties, *grounds]


def _labels(arrows: Sequence[Arrow], middles: Sequence[Middle]) -> list[str]:
    """The labels of the arrows, moved down where two would cover each other."""
    taken: list[tuple[float, float, float]] = []
    labels = []
    for arrow, (x, y) in sorted(zip(arrows, middles, strict=True), key=lambda pair: pair[1][1]):
        if not arrow.label:
            continue
        text = _short(arrow.label)
        half = len(text) * _SMALL / 2
        while any(
            abs(x - other_x) < half + other and abs(y - other_y) < 13 for other_x, other_y, other in taken
        ):
            y += 13
        taken.append((x, y, half))
        labels.append(f'<text class="label" x="{x:.1f}" y="{y - 5:.1f}">{escape(text)}</text>')
    return labels
