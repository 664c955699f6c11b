"""A picture as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator

from graphs.drawing.heat import LIGHT
from graphs.drawing.picture import Arrow, Box, Picture


def mermaid(picture: Picture) -> str:
    """Nodes with kinds, edges with port and type, order and conditions dotted, what is read while it is made
    dashed. What is outside is rounded.

    A node with nodes inside it is a frame around them.
    """
    every = list(picture.everything())
    lines = ["flowchart LR", *_scope(picture, "  ")]
    live = [str(number) for number, arrow in enumerate(_arrows(picture)) if arrow.live]
    if live:
        lines.append(f"  linkStyle {','.join(live)} stroke-dasharray:8 4")
    lines += _class("critical", "stroke-width:3px", [box for box in every if box.critical])
    lines += _class("skipped", "stroke-dasharray:4 4", [box for box in every if box.skipped])
    for heat, shade in enumerate(LIGHT):
        # One fill for every theme: it brings the ink that can be read on it.
        style = f"fill:{shade.fill},color:{shade.ink}"
        lines += _class(f"heat{heat}", style, [box for box in every if box.heat == heat])
    return "\n".join(lines) + "\n"


def _arrows(picture: Picture) -> Iterator[Arrow]:
    """In the order in which they are written, by which Mermaid numbers them."""
    for box in picture.boxes:
        for inner in box.inside:
            yield from _arrows(inner)
    yield from picture.arrows


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
        lines += [
            f'{indent}subgraph {begin}g{index}["one step: {_text(name)}"]',
            *(f"{indent}  {_box(box)}" for box in boxes),
            f"{indent}end",
        ]
    for arrow in picture.arrows:
        line = "-.->" if not arrow.data else "==>" if arrow.critical else "-->"
        label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"{indent}{arrow.source} {line}{label} {arrow.target}")
    return lines


def _frame(box: Box, indent: str) -> list[str]:
    """A node with the nodes inside it; a frame for each body where there are several."""
    lines = [f'{indent}subgraph {box.id}["{_lines(box)}"]']
    for index, inner in enumerate(box.inside):
        begin = f"{box.id}_{index}_"
        if inner.title:
            lines += [
                f'{indent}  subgraph {begin}b["{_text(inner.title)}"]',
                *_scope(inner, f"{indent}    ", begin),
                f"{indent}  end",
            ]
        else:
            lines += _scope(inner, f"{indent}  ", begin)
    return [*lines, f"{indent}end"]


def _class(name: str, style: str, boxes: list[Box]) -> list[str]:
    ids = ",".join(box.id for box in boxes)
    return [f"  classDef {name} {style}", f"  class {ids} {name}"] if boxes else []


def _box(box: Box) -> str:
    return f'{box.id}["{_lines(box)}"]' if box.role == "node" else f'{box.id}(["{_lines(box)}"])'


def _lines(box: Box) -> str:
    return "<br/>".join(_text(line) for line in (box.title, *box.lines))


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
