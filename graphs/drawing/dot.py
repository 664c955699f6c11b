"""A picture in Graphviz' DOT."""

from __future__ import annotations

from graphs.drawing.heat import LIGHT
from graphs.drawing.picture import Arrow, Box, Picture

_HEAD = (
    "  rankdir=LR",
    '  node [shape=box, style=rounded, fontname="sans-serif"]',
    '  edge [fontname="sans-serif", fontsize=10]',
)


def dot(picture: Picture) -> str:
    """A cluster for each step of several nodes, and around each node with nodes inside it; the critical path
    is bold, what is read while it is made dashed, order and conditions dotted."""
    lines = [f"digraph {_text(picture.title)} {{", *_HEAD, *_scope(picture, "  ")]
    return "\n".join([*lines, "}"]) + "\n"


def _scope(picture: Picture, indent: str, begin: str = "") -> list[str]:
    lines: list[str] = []
    groups: dict[str, list[Box]] = {}
    for box in picture.boxes:
        if box.inside:
            lines += _frame(box, indent)
        elif box.group is None:
            lines.append(f"{indent}{_box(box)}")
        else:
            groups.setdefault(box.group, []).append(box)
    for index, (name, boxes) in enumerate(groups.items()):
        lines += _cluster(
            f"{begin}{index}", f"one step: {name}", [f"{indent}  {_box(box)}" for box in boxes], indent
        )
    return lines + [f"{indent}{_arrow(arrow)}" for arrow in picture.arrows]


def _frame(box: Box, indent: str) -> list[str]:
    """A node, in a cluster with the nodes inside it, as an edge can end at no cluster."""
    lines = [f"{indent}  {_box(box)}"]
    for index, inner in enumerate(box.inside):
        begin = f"{box.id}_{index}_"
        lines += _cluster(f"{begin}b", inner.title, _scope(inner, f"{indent}    ", begin), f"{indent}  ")
    return _cluster(box.id, box.title, lines, indent)


def _cluster(name: str, label: str, lines: list[str], indent: str) -> list[str]:
    return [f"{indent}subgraph cluster_{name} {{", f"{indent}  label={_text(label)}", *lines, f"{indent}}}"]


def _box(box: Box) -> str:
    looks = [f"label={_text(chr(10).join((box.title, *box.lines)))}"]
    if box.role != "node":
        looks.append("shape=oval")
    if box.critical:
        looks.append("penwidth=3")
    if box.skipped:
        looks.append('style="rounded,dashed"')
    if box.heat is not None:
        shade = LIGHT[box.heat]
        looks.append(f'style="rounded,filled", fillcolor="{shade.fill}", fontcolor="{shade.ink}"')
    return f"{box.id} [{', '.join(looks)}]"


def _arrow(arrow: Arrow) -> str:
    looks = [f"label={_text(arrow.label)}"] if arrow.label else []
    if arrow.live or not arrow.data:
        looks.append("style=dashed" if arrow.live else "style=dotted")
    if arrow.critical:
        looks.append("penwidth=3")
    return f"{arrow.source} -> {arrow.target}" + (f" [{', '.join(looks)}]" if looks else "")


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
