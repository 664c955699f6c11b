"""What is the same each time moves out, and nothing runs that would not have."""

import msgspec
import pytest

from graphs.bindings import Ref
from graphs.nodes.router import Router
from graphs.pipeline import Fallback
from runtime.compiler.compile import compile_until
from runtime.compiler.explain import show_condition
from tests.runtime.compiler.bodies import (
    EMBED,
    PURE,
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

VECTOR = node(EMBED, text="${inputs.question}")
ASK = prompt("{{ q }} {{ v }}", q="${item.value}", v="${vector.embedding}")


def deduped(nodes, **outputs):
    return compile_until("dedupe", pipeline(nodes, **outputs))


def searching(over, vector=VECTOR):
    return mapped(over, body({"vector": vector, "each": ASK}, text="${each.text}"))


def inner(draft, name="search", key="body"):
    return draft.nodes[name].bodies[key].nodes


def test_out_of_a_loop():
    loop = looped(
        body(
            {"vector": VECTOR, "next": value({"v": "${vector.embedding}", "s": "${state.s}"})},
            last="${next.value}",
        ),
        s="x",
    )
    draft = deduped({"go": loop}, text="${go.s}")
    assert list(draft.nodes) == ["go.vector", "go"]
    assert draft.nodes["go.vector"].when is None
    assert set(inner(draft, "go")) == {"next"}
    assert [(each.node, each.reason) for each in draft.changes] == [("go.vector", "the same in every pass")]


def test_out_of_a_map_over_a_constant_list():
    draft = deduped({"search": searching(["a", "b"])}, text="${search.text}")
    assert draft.nodes["search.vector"].when is None
    assert inner(draft)["each"].inputs["v"] == Ref("search.vector", "embedding")


def test_out_of_a_map_only_where_the_list_is_not_empty():
    draft = deduped({"search": searching("${inputs.list}")}, text="${search.text}")
    assert show_condition(draft.nodes["search.vector"].when) == "size ( ${inputs.list} ) > 0"
    assert set(inner(draft)) == {"each"}


def test_a_chain_moves_as_a_whole():
    chain = {"ask": prompt("{{ q }}?", q="${inputs.question}"), "vector": node(EMBED, text="${ask.text}")}
    draft = deduped(
        {"search": mapped(["a"], body({**chain, "each": ASK}, text="${each.text}"))}, text="${search.text}"
    )
    assert list(draft.nodes) == ["search.ask", "search.vector", "search"]


def test_through_two_bodies():
    outer = mapped(["a"], body({"in": searching(["${outer.value}"])}, texts="${in.text}"), called="outer")
    draft = deduped({"out": outer}, text="${out.texts}")
    assert list(draft.nodes) == ["out.in.vector", "out"]


def test_two_that_moved_out_become_one():
    draft = deduped(
        {"search": searching("${inputs.list}"), "again": searching("${inputs.list}")},
        text="${search.text}",
        again="${again.text}",
    )
    assert "again.vector" not in draft.nodes


@pytest.mark.parametrize("reason", ["local", "sampling", "after", "fallback", "condition", "unknown list"])
def test_what_stays(reason):
    vector, over = VECTOR, "${inputs.list}"
    if reason == "local":
        vector = node(EMBED, text="${item.value}")
    if reason == "sampling":
        vector = msgspec.structs.replace(VECTOR, effects="idempotent")
    nodes = {"vector": vector, "each": ASK}
    if reason == "after":
        nodes = {
            "vector": msgspec.structs.replace(VECTOR, after=("first",)),
            "first": prompt("{{ q }}", q="${item.value}"),
            "each": ASK,
        }
    if reason == "unknown list":
        over = "${list.value}"
    search = mapped(over, body(nodes, text="${each.text}"))
    if reason == "fallback":
        search = msgspec.structs.replace(search, fallback=(Fallback(value={"text": []}),))
    if reason == "condition":
        search = msgspec.structs.replace(search, when="inputs.level == 'a'")
    outputs = {"text": "${search.text}"}
    made = pipeline({"search": search, "list": value([{"q": "${inputs.question}"}])}, **outputs)
    if reason == "condition":
        made = msgspec.structs.replace(made, defaults={"text": None})
    assert "vector" in inner(compile_until("dedupe", made))


def test_a_value_cannot_fail_and_moves_out_of_any_map():
    record = value({"question": "${inputs.question}"})
    each = prompt("{{ q }} {{ r }}", q="${item.value}", r="${record.value}")
    search = mapped("${list.value}", body({"record": record, "each": each}, text="${each.text}"))
    draft = deduped({"search": search, "list": value([{"q": "${inputs.question}"}])}, text="${search.text}")
    assert draft.nodes["search.record"].when is None


def cases(*lasts):
    nodes = {"vector": VECTOR, "same": prompt("{{ v }}", v="${vector.embedding}")}
    return [
        body({**nodes, "step": node(SAMPLING, prompt="${same.text}")}, when, text="${step.text}")
        for when in lasts
    ]


def test_out_of_cases_of_which_one_always_applies():
    draft = deduped({"pick": branched(*cases("inputs.level == 'a'", None))}, text="${pick.text}")
    assert list(draft.nodes) == ["pick.0.vector", "pick.0.same", "pick"]
    for key in ("0", "1"):
        assert inner(draft, "pick", key)["step"].inputs["prompt"] == Ref("pick.0.same", "text")


def test_out_of_choices():
    one, two = cases(None, None)
    router = node(
        Router("small", {"a": "one", "b": "two"}), bodies={"a": one, "b": two}, text="${inputs.question}"
    )
    assert "pick.a.same" in deduped({"pick": router}, text="${pick.text}").nodes


def test_not_out_of_cases_that_may_not_apply():
    made = pipeline(
        {"pick": branched(*cases("inputs.level == 'a'", "inputs.level == 'b'"))}, text="${pick.text}"
    )
    assert list(compile_until("dedupe", made).nodes) == ["pick"]


def test_an_equal_node_around_is_the_one():
    nodes = {"vector": VECTOR, "say": prompt("{{ v }}", v="${vector.embedding}")}
    same = {"mine": VECTOR, "each": prompt("{{ q }} {{ v }}", q="${item.value}", v="${mine.embedding}")}
    nodes["search"] = mapped("${inputs.list}", body(same, text="${each.text}"))
    draft = deduped(nodes, text="${search.text}", say="${say.text}")
    assert set(inner(draft)) == {"each"}
    assert inner(draft)["each"].inputs["v"] == Ref("vector", "embedding")
    assert ("search.mine", "is vector") in [(change.node, change.what) for change in draft.changes]


def test_items_of_different_maps_are_not_the_same():
    each = {"each": node(PURE, prompt="${item.value}")}
    nodes = {
        name: mapped(f"${{inputs.{source}}}", body(each, text="${each.text}"))
        for name, source in (("a", "list"), ("b", "list"))
    }
    draft = deduped(nodes, a="${a.text}", b="${b.text}")
    assert set(draft.nodes) == {"a"}
    assert draft.outputs["b"] == Ref("a", "text")
