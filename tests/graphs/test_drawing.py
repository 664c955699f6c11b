"""Mermaid."""

from graphs.drawing import mermaid
from tests.graphs.shapes import SHAPES, rag


def test_rag():
    lines = mermaid(rag()).splitlines()
    assert lines[0] == "flowchart LR"
    assert '  n0["vector<br/>embed"]' in lines
    assert '  n0 -->|"embedding: Embedding"| n1' in lines
    assert '  i_question -->|"string"| n0' in lines
    assert '  c_sessionHistory -->|"context"| n3' in lines
    assert '  n3 -->|"text: string"| o_text' in lines


def test_every_edge_is_drawn_once():
    for shape in SHAPES.values():
        edges = [line for line in mermaid(shape()).splitlines() if "-->" in line]
        assert edges
        assert len(edges) == len(set(edges))
