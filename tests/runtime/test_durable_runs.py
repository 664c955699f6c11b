"""Durable runs: what is done stays done, whoever goes on with them."""

import asyncio
import time
from contextlib import aclosing

import msgspec
import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.errors import InvalidCall
from cluster.messages import Failure, Usage
from graphs.builder import Builder
from graphs.nodes.approval import Approval
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.prompt import Prompt
from graphs.nodes.rerank import Rerank
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.value import Value
from graphs.ports import STRING
from runtime.approvals.memory import MemoryApprovals
from runtime.approvals.model import Decision
from runtime.compiler.compile import compile_pipeline
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import Checkpoint
from runtime.errors import InvalidInputs, RunEnded, RunExists, RunHeld, UnknownGraph
from runtime.events import (
    NodeDelta,
    NodeFinished,
    NodeStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
    Tally,
)
from runtime.executor.kinds.kind import Resources
from runtime.executor.progress import OF_RUN
from runtime.plan import ExecutionPlan, encode_plan
from runtime.request import RunRequest
from runtime.runner import Runner
from runtime.store.errors import StoreUnavailable
from tests.graphs.shapes import chain, diamond
from tests.runtime.executor.plans import body, node, plan
from tests.runtime.parts import Recorder, Shelf, events_of, pools, request

pytestmark = pytest.mark.leaping

ACME = {"tenant": "acme"}


def two_calls(first: str = "small", second: str = "large"):
    """ask ─► answer"""
    b = Builder("g")
    ask = b.add("ask", Llm(model=first, max_tokens=8), prompt=b.input("question", STRING))
    b.output("text", b.add("answer", Llm(model=second, max_tokens=8), prompt=ask["text"])["text"])
    return b.build()


def a_runner(made, journals, approvals=None, patience_s=60.0, witness=None, **models) -> Runner:
    made = made if isinstance(made, ExecutionPlan) else compile_pipeline(made)
    resources = Resources(pools() | models, approvals=approvals)
    return Runner([made], resources, witness, journals, patience_s=patience_s)


def durable(made, **fields) -> RunRequest:
    name = made.graph if isinstance(made, ExecutionPlan) else made.metadata.name
    given = {"tenant": "acme", "durability": "step", "run_id": "run-1", "inputs": {"question": "why"}}
    return RunRequest(**({"graph": name, "deadline": time.time() + 60} | given | fields))


async def followed(journals, after: int = 0, run_id: str = "run-1") -> list:
    return [event async for batch in journals.follow("acme", run_id, after) for _, event in batch]


def finished_nodes(events) -> list[str]:
    return [event.node for event in events if isinstance(event, NodeFinished)]


HANGS = FakeScript(first_token_s=600)


async def abandoned_at(made, journals, seen: str, **models) -> list:
    """The events that a runner told of a run until a node was done, when it was taken for dead."""
    events = []
    async with aclosing(a_runner(made, journals, **models).run(durable(made))) as run:
        async for event in run:
            events.append(event)
            if isinstance(event, NodeFinished) and event.node == seen:
                journals._runs["acme", "run-1"].held_until = 0.0
                journals._runs["acme", "run-1"].token += 1
                break
    return events


async def test_the_events_that_are_told_are_those_that_are_kept():
    journals = MemoryJournals()
    told = await events_of(a_runner(diamond(), journals), durable(diamond()))
    assert await followed(journals) == told
    kept = await journals.read("acme", "run-1")
    assert kept.state == "succeeded"
    assert {"left", "right"} <= kept.done.keys()


async def test_another_runner_goes_on_where_one_was_lost():
    journals, made = MemoryJournals(), two_calls()
    told = await abandoned_at(made, journals, "ask", large=Recorder(HANGS))
    small, large = Recorder(), Recorder()
    await a_runner(made, journals, small=small, large=large).take_up("acme", "run-1")
    events = await followed(journals)
    assert events[: len(told)] == told
    assert (len(small.calls), len(large.calls)) == (0, 1)
    assert large.calls[0].request_id == "run-1~3.answer"
    resumed = next(event for event in events if isinstance(event, RunResumed))
    assert resumed == RunResumed("run-1", 3, 1)
    alone = (await events_of(a_runner(made, None), durable(made, durability="none")))[-1]
    last = events[-1]
    assert isinstance(last, RunFinished)
    assert (last.outputs, last.usage) == (alone.outputs, alone.usage)
    tally = Tally()
    for event in events[:-1]:
        tally.add(event)
    assert tally.usage == last.usage


async def test_a_runner_that_was_taken_for_dead_says_nothing_more():
    journals, made = MemoryJournals(), two_calls()
    events = []
    run = a_runner(made, journals).run(durable(made))
    async with aclosing(run):
        async for event in run:
            events.append(event)
            if isinstance(event, NodeFinished):
                await asyncio.sleep(0)
                journals._runs["acme", "run-1"].token += 1
    assert finished_nodes(events) == ["ask"]
    assert not isinstance(events[-1], RunFailed | RunFinished)
    assert await state(journals) == "running"


async def state(journals) -> str:
    return (await journals.read("acme", "run-1")).state


async def test_a_run_handed_over_goes_on_elsewhere_at_once():
    journals, made = MemoryJournals(lease_s=600), two_calls()
    first = a_runner(made, journals, large=Recorder(HANGS))
    await first.start(durable(made))
    while "ask" not in (await journals.read("acme", "run-1")).done:
        await asyncio.sleep(0.01)
    with pytest.raises(RunHeld):
        await a_runner(made, journals).take_up("acme", "run-1")
    await first.hand_over()
    assert first.running == []
    assert await journals.abandoned() == [("acme", "run-1")]
    await a_runner(made, journals).take_up("acme", "run-1")
    assert finished_nodes(await followed(journals)) == ["ask", "answer"]


async def test_a_background_run_goes_on_without_a_reader():
    journals, made = MemoryJournals(), two_calls()
    runner = a_runner(made, journals)
    async with aclosing(runner.run(durable(made, background=True, durability="none"))) as run:
        assert isinstance(await anext(run), RunStarted)
    assert isinstance((await followed(journals))[-1], RunFinished)
    assert (await journals.read("acme", "run-1")).done.keys() == {OF_RUN}


async def test_a_reader_that_leaves_cancels_a_durable_run():
    journals, made = MemoryJournals(), two_calls()
    async with aclosing(a_runner(made, journals, small=Recorder(HANGS)).run(durable(made))) as run:
        assert isinstance(await anext(run), RunStarted)
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFailed)
    assert last.failure.kind == "RunCancelled"


async def test_what_is_kept_at_the_exit():
    journals, made = MemoryJournals(), two_calls()
    asked = durable(made, durability="exit", stream=True)
    told = await events_of(a_runner(made, journals), asked)
    assert await followed(journals) == [event for event in told if not isinstance(event, NodeDelta)]
    assert {"ask", OF_RUN} <= (await journals.read("acme", "run-1")).done.keys()


async def test_a_failed_run_goes_on_when_somebody_resumes_it():
    journals, made = MemoryJournals(), two_calls()
    broken = Recorder(FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "it broke"))]))
    told = await events_of(a_runner(made, journals, large=broken), durable(made))
    assert isinstance(told[-1], RunFailed)
    small = Recorder()
    runner = a_runner(made, journals, small=small)
    with pytest.raises(RunEnded, match="when somebody resumes it"):
        await runner.resume("acme", "run-1")
    await runner.resume("acme", "run-1", time.time() + 60)
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFinished)
    assert small.calls == []
    with pytest.raises(RunEnded, match="has succeeded"):
        await runner.resume("acme", "run-1", time.time() + 60)


async def test_a_run_has_the_deadline_that_it_began_with():
    journals, made = MemoryJournals(), two_calls()
    asked = durable(made, deadline=time.time() + 0.2)
    dead = a_runner(made, MemoryJournals(), small=Recorder(HANGS))
    assert dead.running == []
    journal = await journals.begin(asked, compile_pipeline(made))
    await journal.append([RunStarted("run-1", "g", "1", "h")], [])
    await journal.close()
    await asyncio.sleep(0.25)
    await a_runner(made, journals, small=Recorder(HANGS)).take_up("acme", "run-1")
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFailed)
    assert last.failure.kind == "DeadlineExceeded"


@pytest.mark.parametrize("durability", ["none", "exit"])
async def test_a_run_of_which_nothing_was_kept_ends_with_its_runner(durability):
    journals, made = MemoryJournals(lease_s=0.0), two_calls()
    first = a_runner(made, journals, small=Recorder(HANGS))
    await first.start(durable(made, durability=durability))
    await a_runner(made, journals).take_up("acme", "run-1")
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFailed)
    assert last.failure.kind == "ReplicaLost"


async def test_a_run_that_ends_its_runners_is_ended():
    journals, made = MemoryJournals(lease_s=0.0), two_calls()
    await a_runner(made, journals, small=Recorder(HANGS)).start(durable(made))
    for _ in range(3):
        await a_runner(made, journals, small=Recorder(HANGS)).take_up("acme", "run-1")
        assert await state(journals) == "running"
    await a_runner(made, journals).take_up("acme", "run-1")
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFailed)
    assert last.failure.message == "4 runners died at the run, one after the other, without getting further"


async def test_runs_that_cannot_be_begun():
    made = two_calls()
    without = a_runner(made, None)
    (refused,) = await events_of(without, durable(made))
    assert (refused.failure.kind, refused.failure.param) == ("InvalidCall", "durability")
    with pytest.raises(InvalidCall, match="keeps no journals"):
        await without.start(durable(made))
    runner = a_runner(made, MemoryJournals())
    with pytest.raises(InvalidInputs):
        await runner.start(durable(made, inputs={}))
    with pytest.raises(UnknownGraph):
        await runner.start(durable(made, graph="nope"))
    await runner.start(durable(made))
    with pytest.raises(RunExists):
        await runner.start(durable(made))


async def test_a_plan_that_is_not_deployed():
    made, other = two_calls(), compile_pipeline(chain())
    runner = a_runner(made, MemoryJournals())
    asked = request(chain(), plan=encode_plan(other), **ACME)
    first = (await events_of(runner, asked))[-1]
    again = (await events_of(runner, msgspec.structs.replace(asked, run_id="run-2", durability="step")))[-1]
    assert isinstance(first, RunFinished)
    assert first.outputs == again.outputs
    (refused,) = await events_of(runner, msgspec.structs.replace(asked, plan=b"\x01"))
    assert (refused.failure.kind, refused.failure.param) == ("InvalidCall", "plan")
    foreign = encode_plan(compile_pipeline(two_calls("small", "large")))
    small_only = Runner([], Resources({"small": Recorder()}))
    (refused,) = await events_of(small_only, msgspec.structs.replace(asked, plan=foreign))
    assert refused.failure.message == "the plan of g names what this runner does not have: 'large'"


async def test_a_fork_begins_with_what_another_run_has_done():
    journals, made = MemoryJournals(), two_calls()
    small, large = Recorder(), Recorder()
    runner = a_runner(made, journals, small=small, large=large)
    await runner.start(durable(made), [Checkpoint("ask", {"text": "an edited text"})])
    last = (await followed(journals))[-1]
    assert isinstance(last, RunFinished)
    assert (small.calls, len(large.calls)) == ([], 1)
    assert large.calls[0].messages[-1].content == "an edited text"


class Counted:
    """Journals that count, and fail when told so."""

    def __init__(self, journals):
        self._journals = journals
        self.error = None

    def __getattr__(self, name):
        return getattr(self._journals, name)

    async def begin(self, *args):
        journal = await self._journals.begin(*args)
        append = journal.append

        async def appended(events, checkpoints):
            if self.error is not None and any(isinstance(event, NodeFinished) for event in events):
                raise self.error
            await append(events, checkpoints)

        journal.append = appended
        return journal


async def test_a_run_that_cannot_be_kept_any_more_fails():
    journals, made = Counted(MemoryJournals()), two_calls()
    journals.error = StoreUnavailable("gone")
    told = await events_of(a_runner(made, journals), durable(made))
    assert finished_nodes(told) == []
    assert isinstance(told[-1], RunFailed)
    assert told[-1].failure.kind == "ModelUnavailable"
    assert told[-1] == (await followed(journals))[-1]


async def test_a_budget_ends_a_run():
    made = two_calls()
    runner = a_runner(made, None)

    async def ended(runner, budget=None):
        return (await events_of(runner, durable(made, durability="none", token_budget=budget)))[-1]

    spent = (await ended(runner)).usage.total_tokens
    assert isinstance(await ended(runner, spent), RunFinished)
    last = await ended(runner, spent - 1)
    assert (last.failure.kind, last.node) == ("BudgetExceeded", "answer")
    small = Recorder()
    last = await ended(a_runner(made, None, small=small), 1)
    assert (last.failure.kind, small.calls, last.usage) == ("BudgetExceeded", [], Usage())


def reviewed():
    """ask ─► review ─► send"""
    return plan(
        node("ask", Llm(model="m", max_tokens=8), prompt="${inputs.question}", history=[]),
        node("review", Approval(message="May it?"), value="${ask.text}"),
        node("send", Llm("m", max_tokens=8), when="review.approved", prompt="${review.value}", history=[]),
        sent="${send.text}",
    )


async def suspended(journals, approvals, model, **fields) -> Runner:
    runner = a_runner(reviewed(), journals, approvals, patience_s=0.0, m=model)
    await runner.start(durable(reviewed(), **fields))
    events = await followed(journals)
    assert isinstance(events[-1], RunSuspended)
    assert events[-1].waiting == ["review"]
    return runner


async def test_a_run_that_waits_for_people_is_suspended_until_they_decide():
    journals, approvals, model = MemoryJournals(), MemoryApprovals(), Recorder()
    runner = await suspended(journals, approvals, model)
    while runner.running:
        await asyncio.sleep(0)
    (asked,) = approvals.waiting.values()
    assert asked.until > time.time() + 24 * 3600
    await approvals.decide("acme", "run-1", "review", Decision(True, value="an edited text"))
    await a_runner(reviewed(), journals, approvals, m=model).resume("acme", "run-1")
    events = await followed(journals)
    assert isinstance(events[-1], RunFinished)
    assert [call.messages[-1].content for call in model.calls] == ["why", "an edited text"]
    assert approvals.waiting == {}


async def test_the_clock_stands_still_while_a_run_is_suspended():
    journals, approvals, model = MemoryJournals(), MemoryApprovals(), Recorder()
    began = time.time()
    await suspended(journals, approvals, model, deadline=began + 100)
    run = journals._runs["acme", "run-1"]
    kept = (await journals.read("acme", "run-1")).done[OF_RUN]
    assert 90 < kept.outputs["left"] <= 100
    run.request = msgspec.structs.replace(run.request, deadline=began - 1000)
    await a_runner(reviewed(), journals, approvals, m=model).resume("acme", "run-1")
    assert run.request.deadline > began + 90


async def test_a_run_whose_reader_waits_is_not_suspended():
    approvals, model = MemoryApprovals(), Recorder()
    runner = a_runner(reviewed(), MemoryJournals(), approvals, patience_s=0.0, m=model)
    events, _ = await asyncio.gather(
        events_of(runner, durable(reviewed())),
        approvals.decide("acme", "run-1", "review", Decision(True)),
    )
    assert isinstance(events[-1], RunFinished)
    assert not any(isinstance(event, RunSuspended) for event in events)


async def test_a_loop_goes_on_with_the_pass_it_was_in():
    inner = body(
        node("say", Llm(model="m", max_tokens=4), prompt="${state.text}", history=[]),
        node("last", Value(), value="${say.text}"),
        text="${last.value}",
    )
    loop = node("grow", Loop(max_iterations=6), {"body": inner}, text="${inputs.question}")
    made, journals = plan(loop, out="${grow.text}", passes="${grow.iterations}"), MemoryJournals()
    whole = Recorder()
    alone = (await events_of(a_runner(made, None, m=whole), durable(made, durability="none")))[-1]
    await abandoned_at(made, journals, "grow[3].say", m=Recorder())
    again = Recorder()
    before = (await journals.read("acme", "run-1")).done
    await a_runner(made, journals, m=again).take_up("acme", "run-1")
    events = await followed(journals)
    after_resume = events[next(i for i, each in enumerate(events) if isinstance(each, RunResumed)) :]
    assert (events[-1].outputs, events[-1].usage) == (alone.outputs, alone.usage)
    assert len(again.calls) <= 2
    assert "grow+3" in before
    started = {event.node for event in after_resume if isinstance(event, NodeStarted)}
    assert started <= {
        "grow",
        "grow[3].last",
        *(f"grow[{n}].{name}" for n in (4, 5) for name in ("say", "last")),
    }


async def test_a_run_that_has_ended_holds_no_lease():
    made = two_calls()
    runner = a_runner(made, MemoryJournals())
    async with aclosing(runner.run(durable(made))) as run:
        held = [(type(event), len(runner.leases), len(runner.running)) async for event in run]
    assert held[0] == (RunStarted, 1, 1)
    assert held[-1] == (RunFinished, 0, 1)
    assert runner.running == []


async def test_a_document_is_printed_as_before_when_the_run_goes_on():
    b = Builder("g")
    found = b.add("found", Retrieve(index="manual"), embedding=[0.5], top_k=2)
    near = b.add(
        "near", Rerank(model="embedder"), documents=found["documents"], query=b.input("question", STRING)
    )
    said = b.add("said", Prompt("{{ documents }} {{ documents[0] }}"), documents=near["documents"])
    b.output("text", b.add("answer", Llm(model="m", max_tokens=8), prompt=said["text"])["text"])
    made, journals, asked = b.build(), MemoryJournals(), []
    broken = FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "broke"))])
    for script in (broken, FakeScript()):
        m = Recorder(script)
        resources = Resources(pools() | {"m": m}, {"manual": Shelf()})
        runner = Runner([compile_pipeline(made)], resources, None, journals)
        if not asked:
            assert isinstance((await events_of(runner, durable(made)))[-1], RunFailed)
        else:
            await runner.resume("acme", "run-1", time.time() + 60)
            assert isinstance((await followed(journals))[-1], RunFinished)
        asked += [call.messages for call in m.calls]
    assert asked[0] == asked[1]
