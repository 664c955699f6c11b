"""Nodes inside nodes, in all three forms."""

from xml.etree import ElementTree

import pytest

from graphs.drawing.dot import dot
from graphs.drawing.measured import NodeRun, measured
from graphs.drawing.mermaid import mermaid
from graphs.drawing.picture import Arrow, Box, Picture
from graphs.drawing.svg import MAX_BOXES, TooLarge, svg

SVG = "{http://www.w3.org/2000/svg}"
INNER = Picture(
    "",
    (Box("n1_0_i_0", "item", "input"), Box("n1_0_n0", "all.each", "node")),
    (Arrow("n1_0_i_0", "n1_0_n0"),),
)
CASES = tuple(Picture(name, (Box(f"n2_{name}_n0", f"pick.{name}.step", "node"),), ()) for name in "01")
NESTED = Picture(
    "x",
    (
        Box("i_0", "list", "input"),
        Box("n1", "all", "node", ("map",), inside=(INNER,)),
        Box("n2", "pick", "node", ("branch",), inside=CASES),
    ),
    (Arrow("i_0", "n1"), Arrow("n1", "n2")),
)


def test_mermaid():
    assert mermaid(NESTED) == (
        'flowchart LR\n  i_0(["list"])\n  subgraph n1["all<br/>map"]\n    n1_0_i_0(["item"])\n'
        '    n1_0_n0["all.each"]\n    n1_0_i_0 --> n1_0_n0\n  end\n  subgraph n2["pick<br/>branch"]\n'
        '    subgraph n2_0_b["0"]\n      n2_0_n0["pick.0.step"]\n    end\n    subgraph n2_1_b["1"]\n'
        '      n2_1_n0["pick.1.step"]\n    end\n  end\n  i_0 --> n1\n  n1 --> n2\n'
    )


def test_dot():
    lines = [line.strip() for line in dot(NESTED).splitlines()]
    frame = lines.index("subgraph cluster_n1 {")
    assert lines[frame : frame + 10] == [
        "subgraph cluster_n1 {",
        'label="all"',
        'n1 [label="all\\nmap"]',
        "subgraph cluster_n1_0_b {",
        'label=""',
        'n1_0_i_0 [label="item", shape=oval]',
        'n1_0_n0 [label="all.each"]',
        "n1_0_i_0 -> n1_0_n0",
        "}",
        "}",
    ]
    assert "i_0 -> n1" in lines
    assert lines.count("}") == 6


def placed(element, x=0.0, y=0.0):
    """Every box below an element with its place on the whole drawing."""
    if move := element.get("transform"):
        dx, dy = move.removeprefix("translate(").removesuffix(")").split()
        x, y = x + float(dx), y + float(dy)
    if element.tag == f"{SVG}rect":
        left, top = x + float(element.get("x", "0")), y + float(element.get("y", "0"))
        size = float(element.get("width")), float(element.get("height"))
        yield element.get("class"), (left, top, left + size[0], top + size[1])
    for child in element:
        yield from placed(child, x, y)


def test_svg_boxes_are_inside_their_box():
    root = ElementTree.fromstring(svg(NESTED))
    boxes = list(placed(root))
    frames = [box for look, box in boxes if "frame" in look]
    papers = [box for look, box in boxes if look == "body"]
    leaves = [box for look, box in boxes if look == "node"]
    assert (len(frames), len(papers), len(leaves)) == (2, 3, 3)
    assert all(any(holds(frame, paper) for frame in frames) for paper in papers)
    assert all(any(holds(paper, leaf) for paper in papers) for leaf in leaves)
    assert not any(holds(one, other) for one in papers for other in papers if one != other)
    assert "7 boxes, 3 arrows" in root.find(f"{SVG}desc").text


def holds(outer, inner):
    return all(a <= b for a, b in zip(outer[:2], inner[:2], strict=True)) and all(
        a >= b for a, b in zip(outer[2:], inner[2:], strict=True)
    )


def test_all_boxes_count():
    full = Picture("", tuple(Box(f"b{index}", "b", "node") for index in range(MAX_BOXES)), ())
    with pytest.raises(TooLarge):
        svg(Picture("x", (Box("n0", "a", "node", inside=(full,)),), ()))


def test_what_is_inside_is_measured():
    runs = [NodeRun(f"all[{index}].each", "succeeded", 0, 0.5) for index in range(2)]
    picture = measured(NESTED, [*runs, NodeRun("all", "succeeded", 0, 1.0)])
    found = {box.title: box for box in picture.everything()}
    assert found["all.each"].lines == ("2 runs, 1.00 s", "longest 500 ms")
    assert (found["all.each"].heat, found["all"].heat) == (4, None)
    assert found["all"].critical
    assert found["all.each"].critical
