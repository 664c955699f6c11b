"""What always runs in a body of its own joins what is around it."""

import msgspec
import pytest

from graphs.bindings import Literal, Ref
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Fallback
from graphs.ports import STRING, Port, list_of
from runtime.compiler.compile import compile_pipeline
from runtime.compiler.passes.prune import prune
from runtime.compiler.passes.validate import validate
from tests.runtime.compiler.bodies import (
    SAMPLING,
    body,
    branched,
    looped,
    mapped,
    node,
    pipeline,
    prompt,
    value,
)


def pruned(nodes, **outputs):
    return prune(validate(pipeline(nodes, **outputs), None))


def case(when, text="a", **settings):
    return body({"step": node(SAMPLING, prompt="${inputs.question}", **settings)}, when, text="${step.text}")


def subgraph(inner, **given):
    ports = {name: Port(list_of(STRING) if name == "list" else STRING) for name in given}
    return node(Subgraph("other", ports), bodies={"body": inner}, **given)


def test_a_case_that_always_applies():
    draft = pruned({"answer": branched(case("false"), case("true"), case(None))}, text="${answer.text}")
    assert set(draft.nodes) == {"answer.1.step"}
    assert draft.outputs == {"text": Ref("answer.1.step", "text")}
    assert [(change.node, change.what) for change in draft.changes] == [
        ("answer.0", "dropped"),
        ("answer.2", "dropped"),
        ("answer", "inlined"),
    ]


def test_cases_that_never_apply_are_dropped_and_the_others_stay():
    draft = pruned(
        {"answer": branched(case("false"), case("inputs.level == 'a'"), case(None))}, text="${answer.text}"
    )
    assert list(draft.nodes["answer"].bodies) == ["1", "2"]


def test_a_branch_without_a_case_gives_null():
    draft = pruned({"answer": branched(case("false"), case("1 > 2"))}, text="${answer.text}")
    assert draft.nodes == {}
    assert draft.outputs == {"text": Literal(None)}


def test_a_branch_that_may_be_skipped_keeps_cases_that_never_apply():
    """If it runs, it gives null; if it is skipped, what reads it is skipped too."""
    skipped = msgspec.structs.replace(branched(case("false"), case("1 > 2")), when="inputs.level == 'a'")
    given = pipeline({"answer": skipped}, text="${answer.text}")
    plan = compile_pipeline(msgspec.structs.replace(given, defaults={"text": None}))
    ((kept,),) = (step.nodes for step in plan.steps)
    assert list(kept.bodies) == ["0", "1"]


def test_an_output_that_only_a_dropped_case_had_is_null():
    other = body({"step": value("x")}, "false", text="${step.value}", other="${step.value}")
    draft = pruned({"answer": branched(other, case(None))}, text="${answer.text}", other="${answer.other}")
    assert draft.outputs == {"text": Ref("answer.1.step", "text"), "other": Literal(None)}


def test_a_subgraph_takes_what_it_is_given():
    inner = body(
        {
            "ask": prompt("{{ q }}!", q="${inputs.q}"),
            "step": node(SAMPLING, prompt="${ask.text}"),
        },
        text="${step.text}",
    )
    draft = pruned({"rag": subgraph(inner, q="${inputs.question}")}, text="${rag.text}")
    assert draft.nodes["rag.ask"].inputs == {"q": Ref("inputs", "question")}
    assert draft.nodes["rag.step"].inputs["prompt"] == Ref("rag.ask", "text")


def test_bodies_inside_follow():
    each = body({"each": prompt("{{ x }}{{ y }}", x="${item.value}", y="${base.text}")}, text="${each.text}")
    inner = body(
        {"base": prompt("{{ q }}!", q="${inputs.q}"), "all": mapped("${inputs.list}", each)},
        texts="${all.text}",
    )
    given = {"q": "${inputs.question}", "list": "${inputs.list}"}
    draft = pruned({"rag": subgraph(inner, **given)}, text="${rag.texts}")
    (inside,) = draft.nodes["rag.all"].bodies["body"].nodes.values()
    assert inside.inputs == {"x": Ref("item", "value"), "y": Ref("rag.base", "text")}


@pytest.mark.parametrize("reason", ["condition", "fallback", "absent", "record", "name"])
def test_what_has_to_stay_inside(reason):
    inner = {"step": node(SAMPLING, prompt="${inputs.q}", when="false == (inputs.q == '')")}
    outputs = {"text": "${step.text}"}
    if reason != "absent":
        inner["step"] = node(SAMPLING, prompt="${inputs.q}")
    if reason == "record":
        outputs = {"text": ["${step.text}"]}
    if reason == "name":
        inner["all"] = looped(body({"other": value("${state.n}")}, n="${other.value}"), n=["${step.text}"])
    rag = subgraph(body(inner, **outputs), q="${inputs.question}")
    if reason == "condition":
        rag = msgspec.structs.replace(rag, when="inputs.level == 'a'")
    if reason == "fallback":
        rag = msgspec.structs.replace(rag, fallback=(Fallback(value={"text": "x"}),))
    other = node(SAMPLING, prompt="${inputs.question}")
    made = pipeline({"rag": rag, "other": other}, text="${rag.text}", other="${other.text}")
    if reason == "condition":
        made = msgspec.structs.replace(made, defaults={"text": None})
    assert "rag" in prune(validate(made, None)).nodes


def test_order_goes_through():
    """What comes after the branch comes after all in it; what is in it comes after what it came after."""
    nodes = {
        "first": node(SAMPLING, prompt="${inputs.question}"),
        "answer": msgspec.structs.replace(branched(case("true")), after=("first",)),
        "last": node(SAMPLING, prompt="${inputs.question}", after=("answer",)),
    }
    draft = pruned(nodes, text="${answer.text}", first="${first.text}", last="${last.text}")
    assert draft.nodes["answer.0.step"].after == ("first",)
    assert draft.nodes["last"].after == ("answer.0.step",)
