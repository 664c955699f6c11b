"""Pictures of drafts."""

from graphs.drawing.picture import Arrow
from runtime.compiler.compile import compile_until
from runtime.compiler.picture import picture_of_draft
from tests.graphs.shapes import conditional, inline_chain, rag, uneven
from tests.runtime.compiler.bodies import (
    EMBED,
    SAMPLING,
    body,
    branched,
    mapped,
    node,
    pipeline,
    prompt,
    search,
)


def boxes(stage, pipeline):
    picture = picture_of_draft(compile_until(stage, pipeline))
    return {box.title: box for box in picture.boxes if box.role == "node"}


def test_where_nodes_run_is_shown_when_it_is_known():
    assert boxes("fuse", rag())["answer"].lines == ("llm",)
    assert boxes("assign", rag())["answer"].lines == ("llm", "pool small", "near embedder")
    assert boxes("order", rag())["answer"].lines[3].startswith("about ")
    assert boxes("order", rag())["vector"].lines[1] == "pool embedder"
    assert not any("near" in line for line in boxes("order", rag())["vector"].lines)


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


def test_what_is_read_while_it_is_made_is_marked():
    made = {
        "draft": node(SAMPLING, prompt="${inputs.question}"),
        "check": mapped(
            "${draft.sentences}", body({"each": prompt("{{ s }}", s="${item.value}")}, t="${each.text}")
        ),
        "whole": prompt("{{ s }}", s="${draft.sentences}"),
    }
    drawn = picture_of_draft(
        compile_until("validate", pipeline(made, all="${check.t}", whole="${whole.text}"))
    )
    titles = {box.id: box.title for box in drawn.boxes}
    live = {(titles[arrow.source], titles[arrow.target]) for arrow in drawn.arrows if arrow.live}
    assert live == {("draft", "check")}


def test_bodies_are_pictures_inside():
    (drawn,) = (box for box in picture_of_draft(compile_until("order", search())).boxes if box.inside)
    (inner,) = drawn.inside
    assert [(box.title, box.role) for box in inner.boxes] == [
        ("item", "input"),
        ("search.ask", "node"),
        ("search.each", "node"),
        ("text", "output"),
    ]
    assert [arrow.label for arrow in inner.arrows] == ["value: string", "text: string", "text: string"]
    assert drawn.critical
    assert inner.boxes[2].critical


def test_only_the_longest_case_is_critical():
    call = node(SAMPLING, prompt="${inputs.question}")
    long = {"first": call, "step": node(SAMPLING, prompt="${first.text}")}
    pick = branched(
        body({"step": call}, "inputs.level == 'a'", text="${step.text}"), body(long, text="${step.text}")
    )
    picture = picture_of_draft(compile_until("order", pipeline({"pick": pick}, text="${pick.text}")))
    assert [box.title for box in picture.everything() if box.critical] == [
        "pick",
        "pick.1.first",
        "pick.1.step",
    ]
    assert Arrow("i_2", "n0", "when level", data=False) in picture.arrows


def test_what_moved_and_has_no_type_any_more_is_drawn():
    vector = node(EMBED, text="${inputs.question}")
    each = {"vector": vector, "each": prompt("{{ v }}{{ q }}", v="${vector.embedding}", q="${item.value}")}
    made = pipeline({"all": mapped(["a"], body(each, text="${each.text}"))}, text="${all.text}")
    picture = picture_of_draft(compile_until("dedupe", made))
    assert Arrow("n0", "n1", "embedding") in picture.arrows
