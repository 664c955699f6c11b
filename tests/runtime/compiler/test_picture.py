"""Pictures of drafts."""

from graphs.drawing.picture import Arrow
from runtime.compiler.compile import compile_until
from runtime.compiler.picture import picture_of_draft
from tests.graphs.shapes import conditional, inline_chain, rag, uneven


def boxes(stage, pipeline):
    picture = picture_of_draft(compile_until(stage, pipeline))
    return {box.title: box for box in picture.boxes if box.role == "node"}


def test_where_nodes_run_is_shown_when_it_is_known():
    assert boxes("fuse", rag())["answer"].lines == ("llm",)
    assert boxes("assign", rag())["answer"].lines == ("llm", "pool small")
    assert boxes("order", rag())["answer"].lines[2].startswith("about ")


def test_what_runs_together_is_one_group():
    assert {boxes("fuse", inline_chain())[name].group for name in ("n0", "n1", "n2")} == {"n2"}


def test_the_critical_path_is_the_longest():
    drawn = boxes("order", uneven())
    assert [name for name, box in drawn.items() if box.critical] in (["slow"], ["fast", "then_fast"])
    assert not any(box.critical for box in boxes("assign", uneven()).values())


def test_conditions_are_drawn():
    picture = picture_of_draft(compile_until("order", conditional()))
    assert [arrow for arrow in picture.arrows if not arrow.data and arrow.label == "when question"]
    assert all(isinstance(arrow, Arrow) for arrow in picture.arrows)
