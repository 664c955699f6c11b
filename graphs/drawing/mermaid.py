"""A picture as a Mermaid flowchart."""

from __future__ import annotations

from graphs.drawing.heat import LIGHT
from graphs.drawing.picture import Box, Picture


def mermaid(picture: Picture) -> str:
    """Nodes with kinds, edges with port and type, order and conditions dotted. What is outside is rounded."""
    lines = ["flowchart LR"]
    groups: dict[str, list[Box]] = {}
    for box in picture.boxes:
        if box.group is None:
            lines.append(f"  {_box(box)}")
        else:
            groups.setdefault(box.group, []).append(box)
    for index, (name, boxes) in enumerate(groups.items()):
        lines += [
            f'  subgraph g{index}["one step: {_text(name)}"]',
            *(f"    {_box(box)}" for box in boxes),
            "  end",
        ]
    for arrow in picture.arrows:
        line = "-.->" if not arrow.data else "==>" if arrow.critical else "-->"
        label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {arrow.source} {line}{label} {arrow.target}")
    lines += _class("critical", "stroke-width:3px", [box for box in picture.boxes if box.critical])
    lines += _class("skipped", "stroke-dasharray:4 4", [box for box in picture.boxes if box.skipped])
    for heat, shade in enumerate(LIGHT):
        # One fill for every theme: it brings the ink that can be read on it.
        style = f"fill:{shade.fill},color:{shade.ink}"
        lines += _class(f"heat{heat}", style, [box for box in picture.boxes if box.heat == heat])
    return "\n".join(lines) + "\n"


def _class(name: str, style: str, boxes: list[Box]) -> list[str]:
    ids = ",".join(box.id for box in boxes)
    return [f"  classDef {name} {style}", f"  class {ids} {name}"] if boxes else []


def _box(box: Box) -> str:
    text = "<br/>".join(_text(line) for line in (box.title, *box.lines))
    return f'{box.id}["{text}"]' if box.role == "node" else f'{box.id}(["{text}"])'


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
