"""DOT."""

from graphs.drawing.dot import dot
from graphs.drawing.picture import Arrow, Box, Picture, picture_of
from tests.graphs.shapes import ordered


def test_ordered():
    lines = dot(picture_of(ordered())).splitlines()
    assert lines[0] == 'digraph "ordered 0.0.0" {'
    assert '  n0 [label="first\\nllm"]' in lines
    assert '  i_0 [label="question", shape=oval]' in lines
    assert "  n0 -> n1 [style=dotted]" in lines
    assert lines[-1] == "}"


def test_groups_and_the_critical_path():
    boxes = (Box("a", 'say "a"\\', "node", group="g", critical=True), Box("b", "b", "node", group="g"))
    lines = dot(Picture("x", boxes, (Arrow("a", "b", critical=True), Arrow("b", "a")))).splitlines()
    assert lines[4:] == [
        "  subgraph cluster_0 {",
        '    label="one step: g"',
        '    a [label="say \\"a\\"\\\\", penwidth=3]',
        '    b [label="b"]',
        "  }",
        "  a -> b [penwidth=3]",
        "  b -> a",
        "}",
    ]


def test_what_is_read_while_it_is_made_is_dashed():
    boxes = (Box("a", "a", "node"), Box("b", "b", "node"))
    lines = dot(Picture("x", boxes, (Arrow("a", "b", "all", live=True),))).splitlines()
    assert '  a -> b [label="all", style=dashed]' in lines
