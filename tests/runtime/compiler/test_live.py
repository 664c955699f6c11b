"""Which edges are live, and what the plan makes of them."""

from msgspec.structs import replace

from graphs.nodes.llm import Llm
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Cache
from graphs.ports import STRING, Port, list_of
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.compiler.live import live_edges
from tests.runtime.compiler.bodies import PURE, SAMPLING, body, mapped, node, pipeline, prompt, value

DRAFT = Llm(model="small", max_tokens=64)
EACH = body({"ask": node(PURE, prompt="${item}")}, said="${ask.text}")


def edges(taker, *more, **outputs):
    nodes = {"draft": node(DRAFT, prompt="${inputs.question}"), "take": taker, **dict(more)}
    made = pipeline(nodes, **(outputs or {"o": f"${{take.{taker.ports()[0]}}}"}))
    return live_edges(compile_until("order", replace(made, defaults=dict.fromkeys(made.outputs))))


def test_a_map_reads_sentences_while_they_are_written():
    assert edges(mapped("${draft.sentences}", EACH)) == [("draft", "take")]


def test_what_takes_more_or_otherwise_waits():
    also = body({"ask": prompt("{{ a }}{{ b }}", a="${item}", b="${draft.text}")}, said="${ask.text}")
    assert edges(mapped("${draft.sentences}", also)) == []
    assert edges(mapped(["${draft.text}"], EACH)) == []
    assert edges(prompt("{{ all }}", all="${draft.sentences}")) == []
    assert edges(replace(mapped("${draft.sentences}", EACH), after=("draft",))) == []
    assert edges(replace(mapped("${draft.sentences}", EACH), when="size(draft.sentences) > 1")) == []
    assert edges(replace(mapped("${draft.sentences}", EACH), cache=Cache(60.0))) == []
    assert edges(mapped("${inputs.list}", body({"v": value("${draft.sentences}")}, v="${v.value}"))) == []


def test_what_a_body_reads_is_read_by_the_node_that_it_is_in():
    again = body({"ask": node(SAMPLING, prompt="${item}")}, said="${ask.text}")
    inner = body({"deep": mapped("${draft.sentences}", again, called="item")}, said="${deep.said}")
    assert edges(mapped("${inputs.list}", inner, called="outer")) == [("draft", "take")]


def test_an_input_of_a_subgraph_is_read_as_its_nodes_read_it():
    spec = Subgraph("other", {"texts": Port(list_of(STRING))})
    reads = body({"check": mapped("${inputs.texts}", EACH)}, said="${check.said}")
    waits = body({"all": prompt("{{ t }}", t="${inputs.texts}")}, said="${all.text}")
    for inner, expected in ((reads, [("draft", "take")]), (waits, [])):
        taker = node(spec, bodies={"body": inner}, texts="${draft.sentences}")
        assert edges(replace(taker, timeout_s=60.0)) == expected


def chained():
    """draft ~► check ~► again ─► last"""
    nodes = {
        "draft": node(DRAFT, prompt="${inputs.question}"),
        "check": mapped("${draft.sentences}", EACH),
        "again": mapped("${check.said}", EACH),
        "last": prompt("{{ all }}", all="${again.said}"),
    }
    return pipeline(nodes, o="${last.text}")


def test_the_plan_says_what_starts_with_what():
    steps = {step.id: (step.depends_on, step.follows) for step in compile_pipeline(chained()).steps}
    assert steps == {
        "draft": ((), ()),
        "check": ((), ("draft",)),
        "again": ((), ("check",)),
        "last": (("again",), ()),
    }


def test_the_critical_path_does_not_wait_at_a_live_edge():
    draft = compile_until("order", chained())
    first, check, again = (draft.nodes[name] for name in ("draft", "check", "again"))
    last = draft.nodes["last"].seconds
    assert first.remaining_s == max(first.seconds, check.seconds, again.seconds) + last
    assert all(node.priority >= 0 for node in draft.nodes.values())
    assert min(first.priority, check.priority, again.priority) == 0
    told = {(change.node, change.what) for change in draft.changes}
    assert {("check", "begins with draft"), ("again", "begins with check")} <= told
