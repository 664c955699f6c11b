"""A fork gives what a fresh run would have given, and does again what it must and nothing else."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.messages import Usage
from graphs.nodes.agent import Agent, AgentTool
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import NodeId, Retry
from graphs.ports import STRING, Port
from runtime.compiler.compile import compile_pipeline
from runtime.durability.forking import fork
from runtime.durability.model import Checkpoint
from runtime.errors import InputProblem, InvalidInputs
from tests.runtime.compiler.bodies import (
    PURE,
    SAMPLING,
    body,
    branched,
    looped,
    mapped,
    node,
    prompt,
)
from tests.runtime.compiler.bodies import pipeline as written
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.durability.interpreter import Interpreter, plain

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
canonical = msgspec.json.Encoder(order="sorted").encode


def ran(plan, inputs=INPUTS, done=None, forced=None):
    """What a run gave and the run itself."""
    run = Interpreter(plan, done, **(forced or {}))
    return canonical(run.run(inputs)), run


def edited(outputs):
    """Other outputs of the same types, as far as that can be seen."""
    return {port: f"new {value}" if isinstance(value, str) else value for port, value in outputs.items()}


@given(bodied(), st.data())
@settings(deadline=None, max_examples=50)
def test_a_fork_that_changes_nothing_gives_the_same_and_runs_what_it_dropped(pipeline, data):
    plan = compile_pipeline(pipeline)
    result, first = ran(plan)
    if not first.gave:
        return
    path = data.draw(st.sampled_from(sorted(first.gave)))
    done = fork(plan, first.kept, path, first.gave[path])
    again, second = ran(plan, done=done)
    assert again == result
    inside = (f"{path}.", f"{path}[", f"{path}+")
    dropped = set(first.kept) - set(done)
    assert set(second.kept) == {
        each for each in dropped if plain(each) != path and not plain(each).startswith(inside)
    }
    assert all(second.kept[each] == first.kept[each] for each in second.kept)


@given(bodied(), st.data())
@settings(deadline=None, max_examples=50)
def test_a_fork_with_other_outputs_is_a_run_in_which_the_node_gave_them(pipeline, data):
    plan = compile_pipeline(pipeline)
    _, first = ran(plan)
    if not first.gave:
        return
    path = data.draw(st.sampled_from(sorted(first.gave)))
    outputs = edited(first.gave[path])
    fresh, _ = ran(plan, forced={path: outputs})
    again, second = ran(plan, done=fork(plan, first.kept, path, outputs))
    assert again == fresh
    assert path not in second.gave


@given(bodied(), st.data())
@settings(deadline=None, max_examples=30)
def test_a_fork_of_a_fork_is_a_run_with_the_edits_that_stayed(pipeline, data):
    plan = compile_pipeline(pipeline)
    _, first = ran(plan)
    done, forced, given = first.kept, {}, first.gave
    for _ in range(2):
        if not given:
            return
        path = data.draw(st.sampled_from(sorted(given)))
        done = fork(plan, done, path, edited(given[path]))
        forced = {plain(each): done[each].outputs for each in done if plain(each) in (*forced, path)}
        _, later = ran(plan, done=done)
        done = done | later.kept
        given = later.gave
    assert ran(plan, done=done)[0] == ran(plan, forced=forced)[0]


@given(bodied(), st.sets(st.sampled_from(sorted(INPUTS))))
@settings(deadline=None, max_examples=30)
def test_a_fork_with_other_inputs_is_a_run_with_these(pipeline, names):
    plan = compile_pipeline(pipeline)
    _, first = ran(plan)
    others = INPUTS | {name: {"list": ["three"]}.get(name, "b") for name in names}
    done = fork(plan, first.kept, inputs=names)
    assert ran(plan, others, done)[0] == ran(plan, others)[0]
    assert names or not done


def call(text):
    return node(SAMPLING, prompt=text)


def everything():
    """Every kind that holds nodes, and some nodes around them."""
    agent = Agent("small", {"look": AgentTool("Looks.", {"q": Port(STRING)})}, max_steps=3)
    look = body({"find": call("${args.q}"), "sum": call("${find.text}")}, text="${sum.text}")
    case = body(
        {"b": call("${item}"), "c": call("${b.text}"), "d": call("${item}")}, x="${c.text}", y="${d.text}"
    )
    easy = msgspec.structs.replace(case, when="item.value != 'x'")
    step = body(
        {"step": call("${state.s}"), "note": call("${step.text}")}, s="${step.text}", t="${note.text}"
    )
    other = body({"one": call("${inputs.q}"), "two": call("${one.text}")}, text="${two.text}")
    return written(
        {
            "ask": call("${inputs.question}"),
            "late": msgspec.structs.replace(call("${inputs.level}"), after=(NodeId("ask"),)),
            "search": mapped(
                "${inputs.list}",
                body({"pick": branched(easy, case)}, x="${pick.x}", y="${pick.y}"),
                max_items=4,
            ),
            "say": prompt("{{ x }}", x="${search.x}"),
            "answer": call("${say.text}"),
            "again": looped(step, max_iterations=3, s="${ask.text}"),
            "plan": node(agent, bodies={"look": look}, prompt="${inputs.level}"),
            "sub": node(Subgraph("o", {"q": Port(STRING)}), bodies={"body": other}, q="${inputs.level}"),
        },
        text="${answer.text}",
        late="${late.text}",
        again="${again.t}",
        plan="${plan.text}",
        sub="${sub.text}",
        y="${search.y}",
    )


@pytest.fixture(scope="module")
def plan():
    return compile_pipeline(everything())


@pytest.fixture(scope="module")
def done(plan):
    return ran(plan)[1].kept


AGAIN = {
    "again",
    "again+1",
    "again+2",
    "again+3",
    *(f"again[{number}].{name}" for number in range(3) for name in ("step", "note")),
}


@pytest.mark.parametrize(
    ("path", "dropped"),
    [
        ("answer", {"answer"}),
        ("ask", {"ask", "late"} | AGAIN),
        (
            "search[1].pick.0.b",
            {"search[1].pick.0.b", "search[1].pick.0.c", "search[1].pick", "search", "answer"},
        ),
        ("search[0].pick.0.d", {"search[0].pick.0.d", "search[0].pick", "search", "answer"}),
        ("again[1].note", {"again", "again+2", "again+3", "again[1].note", "again[2].step", "again[2].note"}),
        ("again[2].step", {"again", "again+3", "again[2].step", "again[2].note"}),
        (
            "plan[0].look.find",
            {
                "plan",
                "plan[0].look.find",
                "plan[0].look.sum",
                "plan+0.look",
                "plan+1.look",
                "plan+1",
                "plan+2",
            }
            | {"plan[1].look.find", "plan[1].look.sum"},
        ),
        ("plan[1].look.sum", {"plan", "plan[1].look.sum", "plan+1.look", "plan+2"}),
        ("sub.one", {"sub.one", "sub.two"}),
    ],
)
def test_what_is_dropped(plan, done, path, dropped):
    assert set(done) - set(fork(plan, done, path)) == dropped


def test_all_inside_a_node_is_dropped_with_it(plan, done):
    assert not [path for path in fork(plan, done, "search") if path.startswith("search")]
    assert not [path for path in fork(plan, done, "plan") if path.startswith("plan")]
    assert not [path for path in fork(plan, done, "search[1].pick") if path.startswith("search[1]")]


def test_what_follows_from_other_inputs_is_dropped(plan, done):
    assert set(done) - set(fork(plan, done, inputs=["question"])) == {"ask", "late"} | AGAIN


def test_who_forks_owes_nothing_for_what_was_done(plan, done):
    owed = Usage(3, 2)
    paid = {path: msgspec.structs.replace(each, usage=owed) for path, each in done.items()}
    paid["+run"] = Checkpoint("+run", {}, owed)
    kept = fork(plan, paid, "search")
    assert "plan" in kept
    assert "+run" not in kept
    assert not [path for path, each in kept.items() if each.usage is not None]


def test_an_edit_is_of_the_try_at_which_the_nodes_around_it_had_arrived():
    once = looped(body({"step": call("${state.s}")}, s="${step.text}"), max_iterations=2, s="${inputs.level}")
    again = msgspec.structs.replace(once, retry=Retry(2))
    plan = compile_pipeline(written({"again": again}, s="${again.s}"))
    kept = ran(plan)[1].kept
    assert set(kept) == {"again", "again~2", "again~2+1", "again~2+2", "again~2[0].step", "again~2[1].step"}
    forked = fork(plan, kept, "again[1].step", {"text": "mine"})
    assert set(forked) == {"again~2", "again~2+1", "again~2[0].step", "again~2[1].step"}
    assert forked["again~2[1].step"].outputs == {"text": "mine", "finish_reason": "stop"}
    assert fork(plan, kept, "again") == {}


def test_edits_take_the_place_of_what_the_node_gave(plan, done):
    kept = fork(plan, done, "search[1].pick.0.b", {"text": "mine"})
    assert kept["search[1].pick.0.b"] == Checkpoint(
        "search[1].pick.0.b", {"text": "mine", "finish_reason": "stop"}
    )


def test_a_node_that_costs_nothing_and_is_never_kept_can_be_edited(plan, done):
    assert fork(plan, done, "say", {"text": "mine"})["say"] == Checkpoint("say", {"text": "mine"})


def test_a_run_that_failed_can_be_forked_where_it_was_not_done(plan, done):
    begun = {path: each for path, each in done.items() if path not in ("search", "search[1].pick.0.d")}
    assert "search[0].pick.0.d" in fork(plan, begun, "search[1].pick.0.b")


def test_a_node_that_was_taken_out_of_one_that_is_dropped_stays():
    inner = body(
        {"same": node(PURE, prompt="${inputs.level}"), "own": call("${item}")},
        x="${same.text}",
        y="${own.text}",
    )
    plan = compile_pipeline(written({"m": mapped("${inputs.list}", inner)}, x="${m.x}", y="${m.y}"))
    kept = ran(plan)[1].kept
    assert set(kept) == {"m.same", "m", "m[0].own", "m[1].own"}
    assert set(fork(plan, kept, "m[0].own")) == {"m.same", "m[1].own"}
    assert set(fork(plan, kept, "m")) == {"m.same"}
    assert set(fork(plan, kept, "m.same")) == set()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("anwser", "there is no node anwser; did you mean answer?"),
        ("search.pick.0.b", "there is no node search.pick.0.b; did you mean search[0].pick.0.b?"),
        ("search[3].pick.0.bb", "there is no node search[3].pick.0.bb; did you mean search[3].pick.0.b?"),
        ("search[1].pick.b", "there is no node search[1].pick.b; did you mean search[1].pick.1.b?"),
        ("search[01].pick", "there is no node search[01].pick; did you mean search[01].pick?"),
        ("plan[0].find", "there is no node plan[0].find; did you mean plan[0].look.find?"),
        ("again[3].note", "there is no again[3]: again has at most 3 passes"),
        ("search[4].pick", "there is no search[4]: search has at most 4 items"),
        ("plan[3].look.sum", "there is no plan[3]: plan has at most 3 steps"),
        ("search[2].pick", "the run was never in search[2]"),
        ("plan+1", "plan+1 is a part of the work of a node: fork at the node"),
        ("", "there is no node ''"),
        ("x" * 5_000, f"there is no node {'x' * 200}"),
        ("search[1].pick\n", "there is no node search[1].pick\n; did you mean search[1].pick?"),
    ],
)
def test_paths_that_lead_nowhere(plan, done, path, message):
    with pytest.raises(InvalidInputs) as raised:
        fork(plan, done, path)
    assert raised.value.problems == [InputProblem("from", message)]


def test_outputs_that_do_not_fit_are_all_named(plan, done):
    with pytest.raises(InvalidInputs) as raised:
        fork(plan, done, "plan", {"txt": "a", "text": 3, "steps": [1], "x" * 500: 0})
    assert raised.value.problems == [
        InputProblem("outputs.txt", "is not an output of the node (did you mean text?)"),
        InputProblem("outputs.text", "3 is not of type 'string'"),
        InputProblem("outputs.steps", "[0]: 1 is not of type 'object'"),
        InputProblem(f"outputs.{'x' * 64}", "is not an output of the node (known: steps, text)"),
    ]


def test_what_a_node_inside_a_body_gives_has_a_type(plan, done):
    with pytest.raises(InvalidInputs, match=r"outputs\.x: 3 is not of type 'string'"):
        fork(plan, done, "search[1].pick", {"x": 3})
    with pytest.raises(InvalidInputs, match=r"outputs\.text: 3 is not of type 'string'"):
        fork(plan, done, "search[1].pick.0.b", {"text": 3})


def test_values_that_cannot_go_through_a_graph_are_refused(plan, done):
    with pytest.raises(InvalidInputs, match=r"outputs\.steps: a number does not fit 64 bits"):
        fork(plan, done, "plan", {"steps": [{"a": 2**70}]})


def test_an_output_of_which_nothing_is_kept_must_be_given(plan):
    with pytest.raises(InvalidInputs) as raised:
        fork(plan, {}, "answer", {"finish_reason": "stop"})
    assert raised.value.problems == [
        InputProblem("outputs.text", "is missing, and nothing is kept of it: it is a string")
    ]


def test_outputs_are_those_of_a_node(plan, done):
    with pytest.raises(InvalidInputs, match="from: is required where there are outputs"):
        fork(plan, done, outputs={"text": "x"})


def test_a_node_inside_one_that_begins_anew_cannot_be_edited(plan, done):
    with pytest.raises(InvalidInputs, match="from: again begins anew with other inputs: fork at it"):
        fork(plan, done, "again[1].step", {"s": "x"}, inputs=["question"])
    kept = fork(plan, done, "ask", {"text": "x"}, inputs=["question"])
    assert kept["ask"].outputs["text"] == "x"
