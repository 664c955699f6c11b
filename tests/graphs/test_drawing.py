"""Mermaid."""

from graphs.builder import Builder
from graphs.drawing import mermaid
from graphs.ports import STRING
from tests.graphs.shapes import SHAPES, ordered, rag


def test_rag():
    lines = mermaid(rag()).splitlines()
    assert lines[0] == "flowchart LR"
    assert '  n0["vector<br/>embed"]' in lines
    assert '  n0 -->|"embedding: Embedding"| n1' in lines
    assert '  i_question -->|"string"| n0' in lines
    assert '  c_sessionHistory -->|"context"| n3' in lines
    assert '  n3 -->|"text: string"| o_text' in lines


def test_outputs_straight_from_outside():
    b = Builder("x")
    b.output("q", b.input("question", STRING))
    b.output("history", b.context("sessionHistory"))
    b.output("one", b.value("one", 1))
    lines = mermaid(b.build()).splitlines()
    assert '  i_question -->|"string"| o_q' in lines
    assert '  c_sessionHistory -->|"context"| o_history' in lines


def test_every_edge_is_drawn_once():
    for shape in SHAPES.values():
        edges = [line for line in mermaid(shape()).splitlines() if "-->" in line]
        assert edges
        assert len(edges) == len(set(edges))


def test_order_without_data_is_dotted():
    assert "  n0 -.-> n1" in mermaid(ordered()).splitlines()
