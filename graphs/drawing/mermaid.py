"""A picture as a Mermaid flowchart."""

from __future__ import annotations

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
    critical = [box.id for box in picture.boxes if box.critical]
    if critical:
        lines += ["  classDef critical stroke-width:3px", f"  class {','.join(critical)} critical"]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    text = "<br/>".join(_text(line) for line in (box.title, *box.lines))
    return f'{box.id}["{text}"]' if box.role == "node" else f'{box.id}(["{text}"])'


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
