"""Mermaid."""

from graphs.drawing.mermaid import mermaid
from graphs.drawing.picture import Arrow, Box, Picture, picture_of
from tests.graphs.shapes import ordered, rag


def test_rag():
    lines = mermaid(picture_of(rag())).splitlines()
    assert lines[0] == "flowchart LR"
    assert '  n0["vector<br/>embed"]' in lines
    assert '  i_0(["question"])' in lines
    assert '  n0 -->|"embedding: Embedding"| n1' in lines
    assert '  n3 -->|"text: stream[string]"| o_0' in lines


def test_order_without_data_is_dotted():
    assert "  n0 -.-> n1" in mermaid(picture_of(ordered())).splitlines()


def test_groups_and_the_critical_path():
    boxes = (Box("a", 'say "a"', "node", group="g", critical=True), Box("b", "b", "node", group="g"))
    text = mermaid(Picture("x", boxes, (Arrow("a", "b", "<T>", critical=True),)))
    assert text == (
        'flowchart LR\n  subgraph g0["one step: g"]\n    a["say &quot;a&quot;"]\n    b["b"]\n  end\n'
        '  a ==>|"&lt;T&gt;"| b\n  classDef critical stroke-width:3px\n  class a critical\n'
    )


def test_what_is_read_while_it_is_made_is_dashed():
    """Arrows are known by their numbers: those inside a frame are written first."""
    inner = Picture("", (Box("c", "c", "node"), Box("d", "d", "node")), (Arrow("c", "d"), Arrow("c", "d")))
    boxes = (Box("a", "a", "node"), Box("b", "b", "node", inside=(inner,)))
    arrows = (Arrow("a", "b", data=False), Arrow("a", "b", "all", live=True))
    lines = mermaid(Picture("x", boxes, arrows)).splitlines()
    assert "  linkStyle 3 stroke-dasharray:8 4" in lines
    written = [line.strip() for line in lines if "->" in line]
    assert written[3] == 'a -->|"all"| b'
    assert not any("linkStyle" in line for line in mermaid(picture_of(rag())).splitlines())
