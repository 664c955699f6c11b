"""What a picture shows of a pipeline."""

import pytest

from graphs.builder import Builder
from graphs.drawing.picture import Arrow, Box, picture_of
from graphs.ports import STRING
from tests.graphs.shapes import SHAPES, conditional, ordered, rag


def test_rag():
    picture = picture_of(rag())
    assert picture.title == "rag 0.0.0"
    assert Box("n0", "vector", "node", ("embed",), calls_model=True) in picture.boxes
    assert Box("c_0", "sessionHistory", "context") in picture.boxes
    assert Arrow("n0", "n1", "embedding: Embedding") in picture.arrows
    assert Arrow("i_0", "n0", "string") in picture.arrows
    assert Arrow("c_0", "n3", "list[Message]") in picture.arrows
    assert Arrow("n3", "o_0", "text: stream[string]") in picture.arrows


def test_order_and_conditions_are_no_data():
    assert Arrow("n0", "n1", data=False) in picture_of(ordered()).arrows
    assert Arrow("i_0", "n0", "when question", data=False) in picture_of(conditional()).arrows


def test_outputs_straight_from_outside():
    b = Builder("x")
    b.output("q", b.input("question", STRING))
    b.output("history", b.context("sessionHistory"))
    b.output("one", b.value("one", 1))
    arrows = {(arrow.source, arrow.target) for arrow in picture_of(b.build()).arrows}
    assert arrows == {("i_0", "o_0"), ("c_0", "o_1"), ("n0", "o_2")}


@pytest.mark.parametrize("name", SHAPES)
def test_every_arrow_is_there_once_and_ends_at_boxes(name):
    picture = picture_of(SHAPES[name]())
    ids = {box.id for box in picture.boxes}
    assert len(ids) == len(picture.boxes)
    assert len(set(picture.arrows)) == len(picture.arrows) > 0
    assert all(arrow.source in ids and arrow.target in ids for arrow in picture.arrows)
