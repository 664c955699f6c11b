"""Where boxes go: layers from left to right, few crossings, short edges.

    a ─► b ─► d        layers: a | b c | d; an edge over several layers passes a point in each
    └──► c ──►┘

Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981), with
barycentres for the order within a layer. Heights are least-squares fits to the neighbours that keep the
distances (pool adjacent violators: Barlow et al., "Statistical inference under order restrictions", 1972).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

SWEEPS = 8
"""Passes over the layers, for the order and again for the heights."""

Point = tuple[str, int]
"""A box in its layer, or where an edge passes one: the edge's number and the layer."""


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """In pixels from the top left."""

    places: Mapping[str, tuple[float, float]]
    """Middle of each box."""
    routes: Sequence[Sequence[tuple[float, float]]]
    """For each edge the points between its boxes where it passes a layer: pairs, left and right of it."""
    width: float
    height: float


def arrange(
    sizes: Mapping[str, Size],
    edges: Sequence[tuple[str, str]],
    *,
    rooms: Sequence[float] = (),
    column_gap: float = 46,
    row_gap: float = 18,
    margin: float = 24,
) -> Layout:
    """Places boxes. `edges` must not form a cycle.

    `rooms` is how much more than `column_gap` each edge needs on the right of its source.
    """
    layer = _layers(sizes, edges)
    count = max(layer.values(), default=-1) + 1
    points: list[list[Point]] = [[] for _ in range(count)]
    for name, place in layer.items():
        points[place].append((name, place))
    links: list[tuple[Point, Point]] = []
    passes: list[list[Point]] = []
    for number, (source, target) in enumerate(edges):
        way: list[Point] = [(f"\0{number}", place) for place in range(layer[source] + 1, layer[target])]
        for point in way:
            points[point[1]].append(point)
        passes.append(way)
        chain = [(source, layer[source]), *way, (target, layer[target])]
        links += pairwise(chain)
    before, after = _neighbours(points, links)
    _order(points, before, after)
    heights = {point: sizes[point[0]].height if point[0] in sizes else 4.0 for row in points for point in row}
    middle = _heights(points, before, after, heights, row_gap)
    gaps = [column_gap] * count
    for (source, _), room in zip(edges, rooms, strict=False):
        gaps[layer[source]] = max(gaps[layer[source]], column_gap + room)
    lefts, widths, width = _columns(points, sizes, gaps, margin)
    lift = margin - min((middle[point] - heights[point] / 2 for point in middle), default=0.0)
    bottom = max((middle[point] + heights[point] / 2 for point in middle), default=0.0)
    places = {
        name: (lefts[place] + widths[place] / 2, middle[name, place] + lift) for name, place in layer.items()
    }
    routes = [
        [
            (x, middle[point] + lift)
            for point in way
            for x in (lefts[point[1]], lefts[point[1]] + widths[point[1]])
        ]
        for way in passes
    ]
    return Layout(places, routes, width, bottom + lift + margin)


def _layers(names: Iterable[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The longest way from a box without edges into it; such boxes stand next to whom they lead to."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    order = list(nx.topological_sort(graph))
    layer: dict[str, int] = {}
    for name in order:
        layer[name] = max((layer[other] + 1 for other in graph.pred[name]), default=0)
    for name in order:
        if not graph.pred[name] and graph.succ[name]:
            layer[name] = min(layer[other] for other in graph.succ[name]) - 1
    return layer


def _neighbours(
    points: list[list[Point]], links: list[tuple[Point, Point]]
) -> tuple[dict[Point, list[Point]], dict[Point, list[Point]]]:
    before: dict[Point, list[Point]] = {point: [] for row in points for point in row}
    after: dict[Point, list[Point]] = {point: [] for row in points for point in row}
    for source, target in links:
        after[source].append(target)
        before[target].append(source)
    return before, after


def _order(
    points: list[list[Point]], before: Mapping[Point, list[Point]], after: Mapping[Point, list[Point]]
) -> None:
    """Sorts each layer by where its neighbours stand, to and fro."""
    rank = {point: float(index) for row in points for index, point in enumerate(row)}
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        near = before if forth else after
        for row in points if forth else reversed(points):
            row.sort(key=lambda point: _mean([rank[other] for other in near[point]], rank[point]))
            rank.update({point: float(index) for index, point in enumerate(row)})


def _heights(
    points: list[list[Point]],
    before: Mapping[Point, list[Point]],
    after: Mapping[Point, list[Point]],
    heights: Mapping[Point, float],
    gap: float,
) -> dict[Point, float]:
    """The middle of every point: as near to its neighbours as the distances within the layer allow."""
    middle: dict[Point, float] = {}
    for row in points:
        middle.update(
            zip(row, _spread([0.0] * len(row), [heights[point] for point in row], gap), strict=True)
        )
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        for row in points if forth else reversed(points):
            wanted = [
                _mean([middle[other] for other in (before if forth else after)[point]], middle[point])
                for point in row
            ]
            placed = _spread(wanted, [heights[point] for point in row], gap)
            middle.update(zip(row, placed, strict=True))
    return middle


def _spread(wanted: Sequence[float], heights: Sequence[float], gap: float) -> list[float]:
    """The places nearest to `wanted`, in the same order, that leave `gap` between any two."""
    offsets = [0.0]
    for above, below in pairwise(heights):
        offsets.append(offsets[-1] + (above + below) / 2 + gap)
    blocks: list[tuple[float, int]] = []
    for place, offset in zip(wanted, offsets, strict=False):
        total, count = place - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            other, others = blocks.pop()
            total, count = total + other, count + others
        blocks.append((total, count))
    levels = [total / count for total, count in blocks for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=False)]


def _columns(
    points: list[list[Point]], sizes: Mapping[str, Size], gaps: Sequence[float], margin: float
) -> tuple[list[float], list[float], float]:
    """Left edge and width of every layer, and the width of the whole."""
    widths = [max((sizes[name].width for name, _ in row if name in sizes), default=0.0) for row in points]
    lefts = []
    x = margin
    for place, width in enumerate(widths):
        lefts.append(x)
        x += width + (gaps[place] if place + 1 < len(widths) else margin)
    return lefts, widths, x if widths else 2 * margin


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
