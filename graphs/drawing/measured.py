"""A picture in the colours of a run: what every node took, what was skipped, and which way was the longest.

    a 0.1 s ─► b 2.0 s ─► d 0.1 s      b is the darkest. The critical path is a, b, d: d could begin when b
    └────────► c 0.5 s ──►┘            had ended, the last that it waited for.

The nodes inside a `map` or a `loop` run many times and are drawn once: with the sum of all, and the longest.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Literal

import msgspec

from graphs.drawing.picture import Arrow, Box, Picture

HEATS = 5
"""Steps of the scale, from the nodes that took next to nothing to the one that took longest."""

_INDEX = re.compile(r"\[[0-9]+\]")


Status = Literal["running", "succeeded", "failed", "skipped", "cancelled"]


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
        after = "took " if run.status == "succeeded" else f"{run.status} after "
        return (after + show_seconds(run.seconds),)


def measured(picture: Picture, runs: Iterable[NodeRun]) -> Picture:
    """The picture with what the runs took. A node that no run tells of stays as it is."""
    taken = taken_by_node(runs)
    found = {box.id: _taken_by(box.title, taken) for box in picture.everything() if box.role == "node"}
    by_box = {box_id: each for box_id, each in found.items() if each is not None}
    ran = {box_id: each for box_id, each in by_box.items() if not each.skipped}
    most = max((each.seconds for each in ran.values()), default=0.0)
    critical = _critical(picture.arrows, {box.id: ran[box.id] for box in picture.boxes if box.id in ran})
    boxes = tuple(_box(box, by_box, most, critical) for box in picture.boxes)
    arrows = tuple(
        msgspec.structs.replace(arrow, critical=(arrow.source, arrow.target) in critical.items())
        for arrow in picture.arrows
    )
    return Picture(picture.title, boxes, arrows)


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


def _box(box: Box, by_box: Mapping[str, Taken], most: float, critical: Container[str]) -> Box:
    """The box with what it took, and so with all inside it, where no way is the critical one."""
    inside = tuple(
        msgspec.structs.replace(
            inner,
            boxes=tuple(_box(each, by_box, most, ()) for each in inner.boxes),
            arrows=tuple(msgspec.structs.replace(arrow, critical=False) for arrow in inner.arrows),
        )
        for inner in box.inside
    )
    box = msgspec.structs.replace(box, inside=inside, critical=box.id in critical)
    taken = by_box.get(box.id)
    if taken is None:
        return box
    heat = None if taken.skipped else _heat(taken.seconds, most)
    return msgspec.structs.replace(box, lines=(*box.lines, *taken.lines()), heat=heat, skipped=taken.skipped)


def _heat(seconds: float, most: float) -> int:
    return min(HEATS - 1, int(HEATS * seconds / most)) if most > 0 else 0


def _critical(arrows: Iterable[Arrow], ran: Mapping[str, Taken]) -> dict[str, str | None]:
    """The boxes of the critical path, each with the one after it.

    From the node that ended last, back to the one that ended last of those it waited for, and so on. What was
    not run is passed through.
    """
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


def _waited_for(box_id: str, sources: Mapping[str, list[str]], ran: Mapping[str, Taken]) -> set[str]:
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
