"""Layered layout: to the right, nothing on top of anything, quick."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.drawing.layout import Size, arrange
from tests.growth import calls_of

SIZE = Size(80, 40)


def placed(edges, names=None):
    names = names or dict.fromkeys(name for edge in edges for name in edge)
    return arrange(dict.fromkeys(names, SIZE), edges, column_gap=50)


def test_a_chain_is_a_straight_line():
    places = placed([("a", "b"), ("b", "c")]).places
    assert {y for _, y in places.values()} == {24 + 20}
    assert [places[name][0] for name in "abc"] == [24 + 40, 24 + 40 + 130, 24 + 40 + 260]


def test_a_diamond_is_symmetric():
    places = placed([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]).places
    assert places["a"][1] == places["d"][1] == pytest.approx((places["b"][1] + places["c"][1]) / 2)


def test_crossings_are_undone():
    places = placed([("a", "y"), ("b", "x"), ("a", "z")], ["a", "b", "x", "y", "z"]).places
    assert (places["a"][1] < places["b"][1]) == (places["y"][1] < places["x"][1])


def test_a_long_edge_passes_every_layer():
    layout = placed([("a", "b"), ("b", "c"), ("a", "c")])
    assert [len(route) for route in layout.routes] == [0, 0, 2]
    (left, y), (right, _) = layout.routes[2]
    assert right - left == SIZE.width
    assert abs(y - layout.places["b"][1]) > SIZE.height / 2


def test_a_source_stands_beside_whom_it_leads_to():
    places = placed([("a", "b"), ("b", "c"), ("late", "c")]).places
    assert places["late"][0] == places["b"][0]


def test_a_label_gets_its_room():
    edges = [("a", "b"), ("b", "c")]
    layout = arrange(dict.fromkeys("abc", SIZE), edges, rooms=[0, 100], column_gap=50)
    xs = [layout.places[name][0] for name in "abc"]
    assert [xs[1] - xs[0], xs[2] - xs[1]] == [130, 230]


def test_nothing():
    assert arrange({}, [], column_gap=50).places == {}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=25))
def test_boxes_never_cover_each_other_and_edges_go_right(pairs):
    edges = list(dict.fromkeys((f"{a:02}", f"{a + step:02}") for a, step in pairs))
    layout = placed(edges)
    boxes = list(layout.places.values())
    for index, (x, y) in enumerate(boxes):
        assert 0 < x - SIZE.width / 2 < x + SIZE.width / 2 < layout.width
        assert 0 < y - SIZE.height / 2 < y + SIZE.height / 2 < layout.height
        for other_x, other_y in boxes[index + 1 :]:
            assert x != other_x or abs(y - other_y) >= SIZE.height + 17.9
    assert all(layout.places[a][0] < layout.places[b][0] for a, b in edges)


def calls_to_place(layers):
    """Of twenty boxes each."""
    edges = [
        (f"{layer}.{row}", f"{layer + 1}.{(row * 7 + 1) % 20}")
        for layer in range(layers)
        for row in range(20)
    ]
    return calls_of(lambda: placed(edges))


def test_twice_as_many_boxes_cost_twice_as_much():
    assert calls_to_place(28) < 2.2 * calls_to_place(14)
