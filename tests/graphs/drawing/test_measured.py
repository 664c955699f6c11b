"""A picture and a run in, the picture in the colours of the run out."""

import re
from xml.etree import ElementTree

import pytest

from graphs.drawing.dot import dot
from graphs.drawing.measured import NodeRun, measured, show_seconds, taken_by_node
from graphs.drawing.mermaid import mermaid
from graphs.drawing.picture import Arrow, Box, Picture, picture_of
from graphs.drawing.svg import svg
from tests.graphs.shapes import conditional, rag


def ran(path: str, started: float, seconds: float, status: str = "succeeded") -> NodeRun:
    return NodeRun(path, status, started, seconds)


def box(picture: Picture, title: str) -> Box:
    return next(each for each in picture.boxes if each.title == title and each.role == "node")


def critical(picture: Picture) -> set[str]:
    return {each.title for each in picture.boxes if each.critical}


START, LEFT, RIGHT, END = "start", "left", "right", "end"
DIAMOND = Picture(
    "diamond",
    (
        Box("i_0", "question", "input"),
        *(Box(f"n{index}", name, "node", ("llm",)) for index, name in enumerate((START, LEFT, RIGHT, END))),
    ),
    (
        Arrow("i_0", "n0"),
        Arrow("n0", "n1"),
        Arrow("n0", "n2", data=False),
        Arrow("n1", "n3"),
        Arrow("n2", "n3"),
    ),
)


def test_the_critical_path_goes_through_what_ended_last():
    names = {each.id: each.title for each in DIAMOND.boxes}
    for slow, quick in ((LEFT, RIGHT), (RIGHT, LEFT)):
        coloured = measured(
            DIAMOND, [ran(START, 0, 0.1), ran(slow, 0.1, 2.0), ran(quick, 0.1, 0.5), ran(END, 2.1, 0.1)]
        )
        assert critical(coloured) == {START, slow, END}
        hot = {(names[each.source], names[each.target]) for each in coloured.arrows if each.critical}
        assert hot == {(START, slow), (slow, END)}


def test_the_path_passes_through_what_was_not_run():
    runs = [ran(START, 0, 0.1), ran(LEFT, 0.1, 0, "skipped"), ran(END, 0.2, 0.1)]
    assert critical(measured(DIAMOND, runs)) == {START, END}


def test_heat_grows_with_time():
    coloured = measured(
        DIAMOND, [ran(START, 0, 0.0), ran(LEFT, 0, 2.0), ran(RIGHT, 0, 0.9), ran(END, 2, 1.3)]
    )
    assert [box(coloured, name).heat for name in (START, RIGHT, END, LEFT)] == [0, 2, 3, 4]


def test_what_is_not_measured_stays_as_it_is():
    coloured = measured(DIAMOND, [ran(START, 0, 0.1), ran("gone", 0, 5.0)])
    assert box(coloured, LEFT) == box(DIAMOND, LEFT)
    assert box(coloured, START).lines == (*box(DIAMOND, START).lines, "took 100 ms")
    assert measured(DIAMOND, []) == DIAMOND


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("waiting", "waiting for 1.50 s"),
        ("skipped", "skipped"),
        ("failed", "failed after 1.50 s"),
        ("cancelled", "cancelled after 1.50 s"),
    ],
)
def test_what_became_of_a_node(status, line):
    coloured = box(measured(DIAMOND, [ran(START, 0, 1.5, status)]), START)
    assert coloured.lines[-1] == line
    assert coloured.skipped == (status == "skipped")
    assert (coloured.heat is None) == (status == "skipped")


def test_many_runs_of_a_node_are_drawn_once():
    items = [ran(f"{START}[{index}].each", 0.1 * index, 0.5) for index in range(4)]
    items[1] = ran(f"{START}[1].each", 0.1, 0.0, "skipped")
    (taken,) = taken_by_node(items).values()
    assert (len(taken.runs), taken.seconds, taken.longest, taken.skipped) == (3, 1.5, 0.5, False)
    assert taken.ended == pytest.approx(0.8)
    assert list(taken_by_node(items)) == [f"{START}.each"]
    once = Picture("x", (Box("n0", f"{START}.each", "node"),), ())
    assert measured(once, items).boxes[0].lines == ("3 runs, 1.50 s", "longest 500 ms")


def test_indexes_at_every_depth_are_left_out():
    deep = [ran("a[0].b[1].c", 0, 1), ran("a[1].b[10].c", 0, 1), ran("a[0].b[1].d", 0, 1)]
    assert {path: len(taken.runs) for path, taken in taken_by_node(deep).items()} == {"a.b.c": 2, "a.b.d": 1}


def test_a_node_that_was_compiled_away_shows_what_it_held():
    runs = [ran(f"{LEFT}.a", 0.5, 0.5), ran(f"{LEFT}.b[1].c", 1.0, 1.0), ran(f"{LEFT}.d", 0, 0, "skipped")]
    assert box(measured(DIAMOND, runs), LEFT).lines[-1] == "took 1.50 s"
    broken = [*runs, ran(f"{LEFT}.e", 2.0, 0.5, "failed")]
    assert box(measured(DIAMOND, broken), LEFT).lines[-1] == "failed after 2.00 s"
    assert box(measured(DIAMOND, runs[2:]), LEFT) == box(DIAMOND, LEFT)
    assert box(measured(DIAMOND, [ran(f"{LEFT}ish.a", 0, 1)]), LEFT) == box(DIAMOND, LEFT)


INNER = Picture(
    "",
    (
        Box("n1_0_i_0", "item", "input"),
        Box("n1_0_n0", "all.a", "node"),
        Box(
            "n1_0_n1",
            "all.pick",
            "node",
            inside=tuple(
                Picture(case, (Box(f"n1_0_n1_{case}_n0", f"all.pick.{case}.step", "node"),), ())
                for case in "01"
            ),
        ),
        Box("n1_0_n2", "all.c", "node"),
    ),
    (Arrow("n1_0_n0", "n1_0_n1"), Arrow("n1_0_n0", "n1_0_n2")),
)
NESTED = Picture(
    "x", (Box("n0", "first", "node"), Box("n1", "all", "node", inside=(INNER,))), (Arrow("n0", "n1"),)
)


def test_the_critical_path_leads_through_the_item_that_ended_last():
    runs = [
        ran("first", 0, 0.1),
        ran("all", 0.1, 2.0),
        *(ran("all[0].a", 0.1, 0.2), ran("all[0].pick", 0.3, 0.1), ran("all[0].c", 0.3, 1.5)),
        ran("all[0].pick.0.step", 0.3, 0.1),
        *(ran("all[1].a", 0.1, 0.2), ran("all[1].pick", 0.3, 1.8), ran("all[1].c", 0.3, 0.1)),
        ran("all[1].pick.1.step", 0.3, 1.7),
    ]
    coloured = measured(NESTED, runs)
    every = {each.title: each for each in coloured.everything()}
    hot = {title for title, each in every.items() if each.critical}
    assert hot == {"first", "all", "all.a", "all.pick", "all.pick.1.step"}
    (inner,) = coloured.boxes[1].inside
    assert [arrow.target for arrow in inner.arrows if arrow.critical] == ["n1_0_n1"]
    assert every["all"].lines == ("took 2.00 s",)
    assert (every["all"].heat, every["all.pick"].heat, every["all.pick.1.step"].heat) == (None, None, 4)
    assert every["all.c"].heat == 4


def test_nodes_that_were_lifted_out_of_a_body_keep_their_path():
    lifted = Picture("x", (Box("n0", "sub.a", "node"), Box("n1", "b", "node")), (Arrow("n0", "n1"),))
    assert critical(measured(lifted, [ran("sub.a", 0, 1), ran("b", 1, 1)])) == {"sub.a", "b"}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "under 1 ms"), (0.031, "31 ms"), (1.0, "1.00 s"), (75.5, "75.50 s")]
)
def test_seconds_as_people_read_them(seconds, shown):
    assert show_seconds(seconds) == shown


RAG = measured(
    picture_of(rag()),
    [ran("vector", 0, 0.1), ran("search", 0.1, 0.01), ran("ask", 0.2, 0, "skipped"), ran("answer", 0.2, 1.0)],
)


def test_mermaid():
    lines = mermaid(RAG).splitlines()
    assert '  n3["answer<br/>llm<br/>took 1.00 s"]' in lines
    assert "  classDef heat4 fill:#54309f,color:#ffffff" in lines
    assert "  class n3 heat4" in lines
    assert "  class n2 skipped" in lines
    assert not any("heat1" in line or "heat2" in line for line in lines)


def test_dot():
    lines = dot(RAG).splitlines()
    heat = 'style="rounded,filled", fillcolor="#54309f", fontcolor="#ffffff"'
    assert f'  n3 [label="answer\\nllm\\ntook 1.00 s", penwidth=3, {heat}]' in lines
    assert '  n2 [label="ask\\nprompt\\nskipped", style="rounded,dashed"]' in lines


def test_svg():
    text = svg(RAG)
    classes = [each.get("class") for each in ElementTree.fromstring(text).iter() if each.get("class")]
    assert "node model hot heat4" in classes
    assert "node skipped" in classes
    assert {"title on4", "small on4"} <= set(classes)
    assert text.count("--heat4:") == 2
    assert re.search(r"prefers-color-scheme: dark\) \{ svg \{ --heat0", text)


def test_an_svg_without_a_run_has_no_scale():
    assert "heat" not in svg(picture_of(conditional()))
