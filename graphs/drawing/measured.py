"""A picture in the colours of a run: what every node took, what was skipped, and which way was the longest.

    a 0.1 s ─► b 2.0 s ─► d 0.1 s      b is the darkest. The critical path is a, b, d: d could begin when b
    └────────► c 0.5 s ──►┘            had ended, the last that it waited for.

The nodes inside a `map` or a `loop` run many times and are drawn once: with the sum of all, and the longest.
The critical path leads through the item or pass that ended last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from graphs.drawing.picture import Arrow, Box, Picture

HEATS = 5
"""Steps of the scale, from the nodes that took next to nothing to the one that took longest."""

_INDEX = re.compile(r"\[[0-9]+\]")


Status = Literal["running", "waiting", "succeeded", "failed", "skipped", "cancelled"]


class NodeRun(msgspec.Struct, frozen=True):
    """One run of one node, as it was measured."""

    path: str
    """As `search[3].each`."""
    status: Status
    started: float
    """Seconds since the run began."""
    seconds: float

    @property
    def ended(self) -> float:
        return self.started + self.seconds


class Taken(msgspec.Struct, frozen=True):
    """All runs of what is drawn as one node; skipped ones only where all were."""

    runs: tuple[NodeRun, ...]

    @property
    def skipped(self) -> bool:
        return self.runs[0].status == "skipped"

    @property
    def seconds(self) -> float:
        """The sum."""
        return sum(run.seconds for run in self.runs)

    @property
    def longest(self) -> float:
        return max(run.seconds for run in self.runs)

    @property
    def ended(self) -> float:
        return max(run.ended for run in self.runs)

    def lines(self) -> tuple[str, ...]:
        """What the drawing says."""
        if self.skipped:
            return ("skipped",)
        if len(self.runs) > 1:
            return (
                f"{len(self.runs)} runs, {show_seconds(self.seconds)}",
                f"longest {show_seconds(self.longest)}",
            )
        (run,) = self.runs
        word = {"succeeded": "took", "running": "running for", "waiting": "waiting for"}.get(
            run.status, f"{run.status} after"
        )
        return (f"{word} {show_seconds(run.seconds)}",)


def measured(picture: Picture, runs: Iterable[NodeRun]) -> Picture:
    """The picture with what the runs took. A node that no run tells of stays as it is."""
    taken = taken_by_node(runs)
    found = {box.id: _taken_by(box.title, taken) for box in picture.everything() if box.role == "node"}
    times = {box_id: each for box_id, each in found.items() if each is not None}
    # A node with nodes inside it took what they took: its own colour would say it twice.
    alone = {box.id for box in picture.everything() if not box.inside}
    most = max((each.seconds for box_id, each in times.items() if box_id in alone), default=0.0)
    heats = {
        box_id: _heat(each.seconds, most)
        for box_id, each in times.items()
        if box_id in alone and not each.skipped
    }
    return _coloured(picture, times, heats, _way(picture, taken, ""))


def taken_by_node(runs: Iterable[NodeRun]) -> dict[str, Taken]:
    """By the path without the numbers of items and passes, in the order in which they first began."""
    found: dict[str, list[NodeRun]] = {}
    for run in runs:
        found.setdefault(_INDEX.sub("", run.path), []).append(run)
    taken = {}
    for path, each in found.items():
        ran = [run for run in each if run.status != "skipped"]
        taken[path] = Taken(tuple(ran or each))
    return taken


def _taken_by(path: str, taken: Mapping[str, Taken]) -> Taken | None:
    """What a node took. One that was compiled away: from the first to the last of what was inside it."""
    if path in taken:
        return taken[path]
    inside = [run for other, each in taken.items() if other.startswith(f"{path}.") for run in each.runs]
    ran = [run for run in inside if run.status != "skipped"]
    if not ran:
        return None
    began = min(run.started for run in ran)
    status: Status = "failed" if any(run.status == "failed" for run in ran) else "succeeded"
    return Taken((NodeRun(path, status, began, max(run.ended for run in ran) - began),))


def show_seconds(seconds: float) -> str:
    """As people read it."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "under 1 ms"


def _coloured(
    picture: Picture,
    times: Mapping[str, Taken],
    heats: Mapping[str, int],
    critical: Mapping[str, str | None],
) -> Picture:
    """The picture, and those inside its boxes. `critical` are the boxes of the critical path, each with the
    one after it."""
    boxes = []
    for box in picture.boxes:
        taken = times.get(box.id)
        boxes.append(
            msgspec.structs.replace(
                box,
                lines=box.lines if taken is None else (*box.lines, *taken.lines()),
                critical=box.id in critical,
                heat=heats.get(box.id),
                skipped=taken is not None and taken.skipped,
                inside=tuple(_coloured(inner, times, heats, critical) for inner in box.inside),
            )
        )
    arrows = tuple(
        msgspec.structs.replace(arrow, critical=(arrow.source, arrow.target) in critical.items())
        for arrow in picture.arrows
    )
    return Picture(picture.title, tuple(boxes), arrows)


def _heat(seconds: float, most: float) -> int:
    return min(HEATS - 1, int(HEATS * seconds / most)) if most > 0 else 0


def _way(picture: Picture, taken: Mapping[str, Taken], begin: str) -> dict[str, str | None]:
    """The boxes of the critical path, each with the one after it, inside others too.

    `begin` is what the paths of the nodes of the picture begin with, in the item or pass that is looked at.
    """
    drawn = _INDEX.sub("", begin)
    ran: dict[str, NodeRun] = {}
    for box in picture.boxes:
        found = _taken_by(box.title, taken) if box.role == "node" else None
        path = begin + box.title.removeprefix(drawn)
        for run in found.runs if found is not None and not found.skipped else ():
            if run.path == path:
                ran[box.id] = run
    way = _critical(picture.arrows, ran)
    for box in picture.boxes:
        if box.id in way:
            way |= _way_inside(box, ran[box.id].path, taken)
    return way


def _way_inside(box: Box, path: str, taken: Mapping[str, Taken]) -> dict[str, str | None]:
    """The path through the item or pass that ended last."""
    latest: NodeRun | None = None
    way: tuple[Picture, str] | None = None
    for inner in box.inside:
        drawn = f"{box.title}.{inner.title}." if inner.title else f"{box.title}."
        for each in inner.boxes:
            for run in taken[each.title].runs if each.title in taken else ():
                here = run.path.startswith((f"{path}.", f"{path}[")) and run.status != "skipped"
                if here and (latest is None or run.ended > latest.ended):
                    latest = run
                    way = inner, run.path.removesuffix(each.title.removeprefix(drawn))
    return {} if way is None else _way(way[0], taken, way[1])


def _critical(arrows: Iterable[Arrow], ran: Mapping[str, NodeRun]) -> dict[str, str | None]:
    """From the node that ended last, back to the one that ended last of those it waited for, and so on. What
    was not run is passed through."""
    sources: dict[str, list[str]] = {}
    for arrow in arrows:
        sources.setdefault(arrow.target, []).append(arrow.source)
    path: dict[str, str | None] = {}
    after: str | None = None
    candidates = set(ran)
    while candidates:
        last = max(candidates, key=lambda box_id: ran[box_id].ended)
        path[last] = after
        after = last
        candidates = _waited_for(last, sources, ran) - path.keys()
    return path


def _waited_for(box_id: str, sources: Mapping[str, list[str]], ran: Mapping[str, NodeRun]) -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    stack = list(sources.get(box_id, ()))
    while stack:
        source = stack.pop()
        if source in ran:
            found.add(source)
        elif source not in seen:
            seen.add(source)
            stack += sources.get(source, ())
    return found
