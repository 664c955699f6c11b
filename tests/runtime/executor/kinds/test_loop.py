"""`loop`: state from pass to pass, until it is enough."""

import pytest

from cluster.engines.fake import FakeScript
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value
from runtime.events import NodeFinished, NodeStarted
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import events_of, failed, generator

pytestmark = pytest.mark.leaping


def grow(most: int, until: str | None):
    """word ─► grow: loop (word ─► longer, beside it what it was) ─► word, was, iterations"""
    longer = node("longer", Prompt(template="{{ x }}{{ n }}"), x="${state.word}", n="${state.iteration}")
    inside = body(longer, until=until, word="${longer.text}", was="${state.word}")
    grown = node(
        "grow",
        Loop(max_iterations=most, state=("word", "kept")),
        {"body": inside},
        word="${inputs.q}",
        kept=1,
    )
    names = ("word", "was", "kept", "iterations")
    return plan(grown, inputs=("q",), **{name: f"${{grow.{name}}}" for name in names})


@pytest.mark.parametrize(
    ("most", "until", "word", "was", "passes"),
    [
        (3, None, "-012", "-01", 3),
        (9, "size(longer.text) >= 3", "-01", "-0", 2),
        (9, "size(state.word) >= 3", "-012", "-01", 3),
        (1, "false", "-0", "-", 1),
    ],
)
async def test_passes_until_the_condition_holds(most, until, word, was, passes):
    outputs = await outputs_of(grow(most, until), q="-")
    assert outputs == {"word": word, "was": was, "kept": 1, "iterations": passes}


async def test_passes_are_numbered():
    events = await events_of(runner_of(grow(2, None)), asked(q="-"))
    started = [event.node for event in events if isinstance(event, NodeStarted)]
    assert started == ["grow", "grow[0].longer", "grow[1].longer"]
    kinds = [type(event) for event in events if getattr(event, "node", None) == "grow"]
    assert kinds == [NodeStarted, NodeFinished]


async def test_what_a_pass_leaves_out_is_null_in_the_next():
    found = node("found", Value(), when="state.iteration == 0", value="${state.word}")
    inside = body(found, word="${found.value}", until="state.word == null")
    looped = node("again", Loop(max_iterations=5, state=("word",)), {"body": inside}, word="x")
    assert await outputs_of(plan(looped, word="${again.word}", n="${again.iterations}")) == {
        "word": None,
        "n": 3,
    }


async def test_a_bad_condition_fails_the_loop():
    last = await failed(runner_of(grow(2, "state.word.size > 1")), asked(q={}))
    assert (last.failure.kind, last.node) == ("NodeError", "grow")
    assert last.failure.message.startswith("the condition cannot be evaluated")


async def test_the_deadline_ends_a_loop():
    say = node("say", Llm(model="small", max_tokens=1), prompt="${state.word}", history=[])
    inside = body(say, word="${say.text}")
    looped = node("again", Loop(max_iterations=100, state=("word",)), {"body": inside}, word="x")
    small = generator("small", FakeScript(first_token_s=0.3))
    last = await failed(runner_of(plan(looped, word="${again.word}"), small=small), asked(timeout_s=1.5))
    assert last.failure.kind == "DeadlineExceeded"
    assert last.node is not None
    assert last.node.startswith("again[")
    status = await small.engine.status()
    assert status.running == 0
    assert status.completed + status.aborted < 20


async def test_a_state_that_doubles_is_stopped():
    doubled = node("doubled", Value(), value=["${state.all}", "${state.all}"])
    inside = body(doubled, all="${doubled.value}")
    looped = node("again", Loop(max_iterations=100, state=("all",)), {"body": inside}, all="x" * 1024)
    last = await failed(runner_of(plan(looped, n="${again.iterations}")), asked())
    assert (last.failure.kind, last.node) == ("NodeError", "again")
    assert last.failure.message.startswith("the state is larger than 4 MiB after pass 1")
