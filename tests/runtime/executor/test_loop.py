"""Dataflow: no barriers, nothing leaked, one failure ends it."""

import asyncio
import gc
import weakref

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.bindings import Ref
from graphs.builder import Builder
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value
from graphs.pipeline import Pipeline
from graphs.ports import ANY, MESSAGE, STRING, list_of
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeFailed, NodeFinished, NodeSkipped, NodeStarted, RunFailed
from runtime.executor.kinds.kind import Resources
from runtime.executor.loop import execute
from runtime.executor.prepare import PreparedBody, PreparedNode, PreparedStep, prepare
from runtime.executor.queue import EventQueue
from runtime.executor.run import Run, RunScope
from runtime.runner import Runner
from tests.graphs.shapes import conditional, diamond, inline_chain, ordered, rag, uneven
from tests.runtime.parts import Shelf, events_of, failed, finished, make_runner, pools, request

pytestmark = pytest.mark.leaping

BREAKS = FakeScript(rules=[Rule(contains="why", failure=Failure("EngineFailed", "it broke"))])


def a_run() -> Run:
    return Run(RunScope("r", 1e12, "", 0, False), EventQueue())


async def outputs_of(pipeline: Pipeline, run: Run, models=None, **inputs) -> dict:
    resources = Resources(models or pools(), {"manual": Shelf()})
    given = {Ref("inputs", name): value for name, value in inputs.items()}
    return await execute(prepare(compile_pipeline(pipeline), resources), run, given)


async def test_a_fast_branch_does_not_wait_for_a_slow_one():
    models = pools(large=FakeScript(first_token_s=0.5))
    events = await events_of(make_runner(uneven(), models), request(uneven()))
    ends = [event.node for event in events if isinstance(event, NodeFinished)]
    assert ends == ["fast", "then_fast", "slow"]


async def test_independent_calls_run_at_the_same_time():
    models = pools(small=FakeScript(first_token_s=0.05), large=FakeScript(first_token_s=0.05))
    events = await events_of(make_runner(diamond(), models), request(diamond()))
    names = [event.node for event in events if isinstance(event, NodeStarted | NodeFinished)]
    assert set(names[:2]) == {"left", "right"}


async def test_a_node_waits_for_those_it_comes_after():
    events = await events_of(make_runner(ordered()), request(ordered()))
    names = [event.node for event in events if isinstance(event, NodeStarted | NodeFinished)]
    assert names == ["first", "first", "second", "second"]


async def test_a_node_whose_condition_does_not_hold_is_skipped():
    events = await events_of(make_runner(conditional()), request(conditional()))
    skipped = {event.node: event for event in events if isinstance(event, NodeSkipped)}
    assert skipped == {
        "long": NodeSkipped("long", "llm", "its condition does not hold"),
        "say": NodeSkipped("say", "prompt", "its input text is absent"),
    }
    started = {event.node for event in events if isinstance(event, NodeStarted)}
    assert started == {"short", "both"}
    short = events[-1].outputs["short"]
    assert events[-1].outputs == {
        "text": "nothing",
        "short": short,
        "both": {"long": None, "list": [short]},
    }


async def test_a_node_whose_condition_holds_runs():
    asked = request(conditional(), inputs={"question": "why not at all"})
    last = await finished(make_runner(conditional()), asked)
    assert last.outputs["short"] is None
    assert last.outputs["text"].startswith("It says ")
    assert last.outputs["both"] == {"long": last.outputs["text"], "list": [None]}


async def test_what_is_absent_takes_the_default_of_its_port():
    b = Builder("x")
    question = b.input("question", STRING)
    said = b.input("said", list_of(MESSAGE), default=[{"role": "user", "content": "one two three"}])
    turns = b.add("turns", Value(), value=said).when("inputs.question == 'with'")
    answer = b.add("answer", Llm(model="small", max_tokens=4), prompt=question, history=turns["value"])
    b.output("text", answer["text"])
    runner = make_runner(b.build())
    without = await finished(runner, request(b.build()))
    among = await finished(runner, request(b.build(), inputs={"question": "with"}))
    assert (without.usage.prompt_tokens, among.usage.prompt_tokens) == (1, 4)


async def test_a_condition_that_cannot_be_evaluated_fails_its_node():
    b = Builder("x")
    b.input("question", STRING)
    extra = b.input("extra", ANY, default=None)
    answer = b.add("answer", Llm(model="small"), prompt="hi").when("inputs.extra.n > 3")
    b.output("text", answer["text"], default=None)
    b.output("extra", b.value("e", [extra]))
    last = await failed(
        make_runner(b.build()), request(b.build(), inputs={"question": "", "extra": {"m": 1}})
    )
    assert (last.node, last.failure.kind) == ("answer", "NodeError")
    assert last.failure.message == "the condition cannot be evaluated: there is no field n"


async def test_a_failure_names_its_node_and_ends_its_siblings():
    models = pools(small=BREAKS, large=FakeScript(first_token_s=30))
    events = await events_of(make_runner(diamond(), models), request(diamond()))
    broke = Failure("EngineFailed", "it broke")
    assert [event for event in events if isinstance(event, NodeFailed)] == [NodeFailed("left", broke)]
    last = events[-1]
    assert isinstance(last, RunFailed)
    assert (last.node, last.failure) == ("left", broke)
    status = await models["large"].engine.status()
    assert (status.running, status.aborted) == (0, 1)


async def test_a_failed_run_owes_what_was_used():
    models = pools(large=BREAKS)
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="small", max_tokens=4), prompt=question)
    ask = b.add("ask", Prompt(template="why {{ x }}"), x=first["text"])
    b.output("text", b.add("second", Llm(model="large"), prompt=ask["text"])["text"])
    last = await failed(make_runner(b.build(), models), request(b.build()))
    # first: "why", 4 tokens; second: "why" and those 4 tokens again, nothing out
    assert last.usage == Usage(prompt_tokens=1 + 5, completion_tokens=4)


async def test_an_inline_node_can_fail_too():
    b = Builder("x")
    question = b.input("question", STRING)
    b.output("text", b.add("ask", Prompt(template="{{ q.nope }}"), q=question)["text"])
    last = await failed(make_runner(b.build()), request(b.build()))
    assert (last.node, last.failure.kind) == ("ask", "NodeError")
    assert "has no attribute 'nope'" in last.failure.message


async def test_no_task_outlives_a_run():
    models = pools(small=BREAKS, large=FakeScript(first_token_s=30))
    before = asyncio.all_tasks()
    await failed(make_runner(diamond(), models), request(diamond()))
    assert asyncio.all_tasks() == before


class Big(str):
    """A text that can be watched."""


async def test_values_are_let_go_when_their_last_reader_is_done():
    made: list[weakref.ref[Big]] = []
    alive: list[int] = []

    def produce(_inputs):
        text = Big("x")
        made.append(weakref.ref(text))
        gc.collect()
        alive.append(sum(ref() is not None for ref in made))
        return {"text": text}

    def node(index: int) -> PreparedNode:
        inputs = () if index == 0 else (("x", lambda values: values[index - 1]),)
        return PreparedNode(f"n{index}", "value", inputs, (("text", index),), produce, None)

    count = 8
    steps = tuple(
        PreparedStep(
            (node(index),),
            None,
            inline=True,
            waits_for=int(index > 0),
            successors=(index + 1,) if index + 1 < count else (),
            reads=(index - 1,) if index else (),
            priority=0,
        )
        for index in range(count)
    )
    plan = PreparedBody(steps, (0,), (), (), (("last", lambda values: values[count - 1]),), (1,) * count)
    outputs = await execute(plan, a_run(), {})
    assert outputs == {"last": "x"}
    assert max(alive) == 2


async def test_an_error_that_is_a_bug_ends_the_run_and_is_logged(caplog):
    class Broken(Shelf):
        def search(self, vector, top_k):
            raise ZeroDivisionError

    runner = Runner([compile_pipeline(rag())], Resources(pools(), {"manual": Broken()}))
    last = await failed(runner, request(rag()))
    assert (last.failure.kind, last.node) == ("RunError", "search")
    assert last.failure.message == "the run broke for a reason of our own"
    assert "ZeroDivisionError" in caplog.text


async def test_a_long_inline_chain():
    last = await finished(make_runner(inline_chain(500)), request(inline_chain(500)))
    assert last.outputs == {"text": "why" + "." * 500}


async def test_usage_is_summed_over_nodes():
    run = a_run()
    await outputs_of(diamond(), run, question="one two")
    assert run.usage == Usage(prompt_tokens=4, completion_tokens=16)
    assert run.running == {}


async def test_cancelling_reaches_the_engines():
    models = pools(small=FakeScript(first_token_s=30), large=FakeScript(first_token_s=30))
    run = asyncio.create_task(outputs_of(diamond(), a_run(), models, question="why"))
    while not all([(await models[name].engine.status()).running for name in ("small", "large")]):
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    for name in ("small", "large"):
        status = await models[name].engine.status()
        assert (status.running, status.aborted) == (0, 1)
