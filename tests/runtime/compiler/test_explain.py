"""Differences between stages, each with its reason."""

from itertools import pairwise

import pytest
from hypothesis import given, settings

from graphs.bindings import Items, Literal, Ref
from graphs.builder import Builder
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.ports import STRING
from runtime.compiler.compile import STAGES, stages
from runtime.compiler.explain import Difference, differences, show, show_condition
from tests.graphs.shapes import SHAPES, conditional, inline_chain, uneven
from tests.runtime.compiler.bodies import EMBED, body, branched, mapped, node, pipeline, prompt
from tests.runtime.compiler.random_bodies import bodied


def of(pipeline, first="validate", last="order"):
    return differences(stages(pipeline), first, last)


def test_what_was_pruned_and_who_took_from_it():
    b = Builder("x")
    question = b.input("question", STRING)
    role = b.value("role", "brief")
    ask = b.add("ask", Prompt(template="{{ q }} {{ role }}"), q=question, role=role)
    answer = b.add("answer", Llm(model="m"), prompt=ask["text"]).when("role.value == 'brief'")
    b.output("text", answer["text"], default=None)
    b.output("role", role)
    why = "role: prune: computed now, its inputs are constants"
    assert of(b.build(), last="prune") == [
        Difference("role", "gone", "prune: computed now, its inputs are constants"),
        Difference("ask", "role: ${role.value} → brief", why),
        Difference("answer", "its condition always holds", why),
        Difference("outputs.role", "${role.value} → brief", why),
    ]


def test_what_was_merged():
    b = Builder("x")
    question = b.input("question", STRING)
    for side in ("a", "b"):
        vector = b.add(f"v{side}", Embed(model="m"), text=question)
        b.output(side, b.add(side, Llm(model="m"), prompt=question).after(vector)["text"])
    found = {(each.node, each.what): each.reason for each in of(b.build(), last="dedupe")}
    why = "dedupe: is va, the same computation on the same inputs"
    assert found == {("vb", "gone"): why, ("b", "after: vb → va"): f"vb: {why}"}


def test_what_later_stages_set():
    found = {(each.node, each.what) for each in of(uneven(), "dedupe")}
    assert ("slow", "place: inline → pool large") in found
    assert [what for name, what in found if what.startswith("priority: 0 → ")]
    (first, *_) = of(inline_chain(), "dedupe", "fuse")
    assert first == Difference(
        "n0", "group: alone → n2", "runs with n2, both are cheap, and nobody else waits"
    )


@pytest.mark.parametrize("name", SHAPES)
def test_one_stage_after_the_other_tells_of_every_change(name):
    drafts = stages(SHAPES[name]())
    for first, last in pairwise(STAGES[:-1]):
        before, after = drafts[first], drafts[last]
        changed = before.outputs != after.outputs or before.nodes != after.nodes
        assert bool(differences(drafts, first, last)) == changed


def test_show_condition():
    drafts = stages(conditional())
    assert show_condition(drafts["order"].nodes["long"].when) == "size ( ${inputs.question} ) > 5"


def test_show():
    assert show(Ref("a", "b")) == "${a.b}"
    assert show(Items((Ref("a", "b"), Literal(1)))) == "[${a.b}]"
    assert show(Literal(None)) == "none"
    assert len(show(Literal("x" * 100))) == 60


def test_what_moved_out_of_a_body():
    each = {
        "vector": node(EMBED, text="${inputs.question}"),
        "each": prompt("{{ v }}{{ q }}", v="${vector.embedding}", q="${item.value}"),
    }
    made = pipeline({"all": mapped(["a"], body(each, text="${each.text}"))}, text="${all.text}")
    why = "dedupe: moved out of all, the same for every item"
    assert of(made, last="dedupe") == [
        Difference("all.vector", "moved out", why),
        Difference("all.each", "v: ${vector.embedding} → ${all.vector.embedding}", f"all.vector: {why}"),
    ]


def test_what_became_of_cases():
    case = {"step": prompt("{{ q }}", q="${inputs.question}")}
    cases = [body(case, when, text="${step.text}") for when in ("false", "true", None)]
    made = pipeline({"pick": branched(*cases)}, text="${pick.text}")
    found = {(each.node, each.what): each.reason for each in of(made, last="prune")}
    assert found == {
        ("pick", "gone"): "prune: inlined, the nodes inside it run exactly once",
        ("pick.1.step", "moved out"): "prune: inlined, the nodes inside it run exactly once",
        ("outputs.text", "${pick.text} → ${pick.1.step.text}"): (
            "pick: prune: inlined, the nodes inside it run exactly once"
        ),
    }


@given(bodied())
@settings(deadline=None, max_examples=50)
def test_every_change_in_bodies_is_told(made):
    drafts = stages(made)
    for first, last in pairwise(STAGES[:-1]):
        before, after = drafts[first], drafts[last]
        changed = before.outputs != after.outputs or before.nodes != after.nodes
        assert bool(differences(drafts, first, last)) == changed
