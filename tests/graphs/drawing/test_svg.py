"""SVG: well-formed, complete, in both colour schemes, and bounded."""

from xml.etree import ElementTree

import pytest

from graphs.drawing.picture import Arrow, Box, Picture, picture_of
from graphs.drawing.svg import MAX_BOXES, TooLarge, svg
from tests.graphs.shapes import SHAPES, rag

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture):
    return ElementTree.fromstring(svg(picture))


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", SHAPES)
def test_every_box_and_arrow_is_drawn(name):
    picture = picture_of(SHAPES[name]())
    root = parsed(picture)
    boxes = [element for element in root.iter(f"{SVG}rect") if element.get("class") != "paper"]
    arrows = [element for element in root.iter(f"{SVG}path") if "edge" in element.get("class")]
    assert len(boxes) == len(picture.boxes)
    assert len(arrows) == len(picture.arrows)
    assert {box.title for box in picture.boxes} <= set(texts(root))
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for box in boxes:
        assert 0 <= float(box.get("x")) <= float(box.get("x")) + float(box.get("width")) <= width
        assert 0 <= float(box.get("y")) <= float(box.get("y")) + float(box.get("height")) <= height


def test_types_are_on_the_arrows():
    assert "documents: list[Document]" in texts(parsed(picture_of(rag())))


def test_it_says_what_it_shows():
    root = parsed(picture_of(rag()))
    assert root.find(f"{SVG}title").text == "rag 0.0.0"
    assert root.find(f"{SVG}desc").text == "The graph rag 0.0.0: 9 boxes, 9 arrows."
    assert root.get("role") == "img"


def test_light_and_dark_have_the_same_colours():
    style = svg(picture_of(rag()))
    light, dark = (part.split("}")[0] for part in style.split("svg { ")[1:3])
    names = [{word.split(":")[0] for word in half.split() if word.startswith("--")} for half in (light, dark)]
    assert names[0] == names[1]
    assert "prefers-color-scheme: dark" in style


def test_what_could_be_markup_is_text():
    boxes = (Box("a", "<script>&", "node", ("<b>",)), Box("b", "b", "output"))
    root = parsed(Picture("<title>", boxes, (Arrow("a", "b", "list[<x>]" * 9),)))
    assert {"<script>&", "<b>"} <= set(texts(root))
    assert root.find(f"{SVG}title").text == "<title>"
    assert all(len(text) <= 30 for text in texts(root))


def test_groups_and_the_critical_path_are_marked():
    boxes = (
        Box("a", "a", "node", group="g", critical=True),
        Box("b", "b", "node", group="g", critical=True, calls_model=True),
    )
    arrows = (Arrow("a", "b", critical=True), Arrow("a", "b", data=False), Arrow("a", "b", live=True))
    root = parsed(Picture("x", boxes, arrows))
    looks = [element.get("class") for element in root.iter() if element.get("class")]
    assert looks.count("group") == 2
    assert looks.count("tie") == 3
    assert {"node hot", "node model hot", "edge hot", "tip hot", "edge dotted", "edge dashed"} <= set(looks)


def test_labels_do_not_cover_each_other():
    boxes = (Box("a", "a", "node"), Box("b", "b", "node"))
    root = parsed(Picture("x", boxes, tuple(Arrow("a", "b", f"port{index}: string") for index in range(5))))
    heights = [float(text.get("y")) for text in root.iter(f"{SVG}text") if text.get("class") == "label"]
    assert len({round(height) for height in heights}) == 5


def test_too_many_boxes_are_refused():
    boxes = tuple(Box(f"n{index}", "n", "node") for index in range(MAX_BOXES + 1))
    with pytest.raises(TooLarge, match="too many"):
        svg(Picture("x", boxes, ()))
