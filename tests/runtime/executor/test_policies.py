"""Time-outs, retries and fallbacks of nodes."""

import asyncio

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidCall,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
)
from cluster.messages import Failure, Generate, Usage
from graphs.nodes.llm import Llm
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.pipeline import Fallback, Retry
from runtime.errors import NodeError
from runtime.events import NodeCalled, NodeFailed, NodeFellBack, NodeFinished, NodeRetried, Tally
from runtime.executor import policies
from runtime.executor.policies import MAX_PAUSE_S, cause_of, pause_s
from runtime.executor.run import NodeBroke
from tests.runtime.executor.plans import asked, body, node, plan, runner_of
from tests.runtime.parts import events_of, failed, finished, generator

pytestmark = pytest.mark.leaping

AGAIN = Retry(attempts=3, on=("unavailable",))
GONE = ModelUnavailable("nobody is there")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(policies, "FIRST_PAUSE_S", 0.0)


class Flaky:
    """A pool whose calls fail one after the other, until there is no failure left."""

    def __init__(self, *failures: Exception, script: FakeScript | None = None) -> None:
        self._pool = generator("small", script or FakeScript(output_tokens=4))
        self._failures = list(failures)
        self.calls: list[Generate] = []
        self.engine = self._pool.engine
        self.info = self._pool.info
        self.count_tokens = self._pool.count_tokens

    def generate(self, call):
        self.calls.append(call)
        return self._broken(self._failures.pop(0)) if self._failures else self._pool.generate(call)

    async def _broken(self, failure):
        raise failure
        yield []


def answering(stream: bool = False, **given):
    """q ─► answer ─► text"""
    spec = Llm(model="small", max_tokens=4, stream=stream)
    answer = node("answer", spec, policies=given, prompt="${inputs.q}", history=[])
    return plan(answer, inputs=("q",), text="${answer.text}", why="${answer.finish_reason}")


def told(events, *kinds):
    return [event for event in events if isinstance(event, kinds)]


async def test_a_node_is_tried_again():
    small = Flaky(GONE, ReplicaLost("it died"))
    events = await events_of(runner_of(answering(retry=AGAIN), small=small), asked(q="why"))
    assert told(events, NodeRetried, NodeFailed) == [
        NodeRetried("answer", 2, "unavailable"),
        NodeRetried("answer", 3, "unavailable"),
    ]
    assert events[-1].outputs["text"].count(" ") == 3
    ids = [call.request_id for call in small.calls]
    assert ids == ["run-1.answer", "run-1.answer~2", "run-1.answer~3"]


async def test_so_many_times_and_no_more():
    small = Flaky(GONE, GONE, GONE)
    events = await events_of(runner_of(answering(retry=AGAIN), small=small), asked(q="why"))
    assert len(small.calls) == 3
    assert told(events, NodeFailed) == [NodeFailed("answer", GONE.as_failure())]
    assert (events[-1].node, events[-1].failure.kind) == ("answer", "ModelUnavailable")


async def test_only_what_is_listed_is_tried_again():
    small = Flaky(EngineFailed("it broke"))
    last = await failed(runner_of(answering(retry=AGAIN), small=small), asked(q="why"))
    assert (last.failure.kind, len(small.calls)) == ("EngineFailed", 1)


async def test_failed_tries_are_owed_too():
    """An engine that breaks has read the prompt; one that is not there has not."""
    again = Retry(attempts=3, on=("unavailable", "error"))
    small = Flaky(EngineFailed("it broke"), GONE)
    events = await events_of(runner_of(answering(retry=again), small=small), asked(q="one two"))
    assert told(events, NodeFinished)[0].usage == Usage(2 + 0 + 2, 4)
    tally = Tally()
    for event in events[:-1]:
        tally.add(event)
    assert tally.usage == events[-1].usage == Usage(4, 4)


async def test_nothing_is_tried_again_once_text_has_left():
    rule = Rule(contains="why", failure=Failure("ReplicaLost", "it died"), failure_after=2)
    script = FakeScript(rules=[rule])
    given = {"retry": AGAIN, "fallback": (Fallback(value="sorry"),)}
    for stream, calls in ((True, 1), (False, 3)):
        small = Flaky(script=script)
        made = runner_of(answering(stream=True, **given), small=small)
        events = await events_of(made, asked(stream=stream, q="why"))
        assert len(small.calls) == calls
        assert bool(told(events, NodeFellBack)) is not stream
        assert bool(told(events, NodeFailed)) is stream


async def test_each_try_has_its_time():
    small = Flaky(script=FakeScript(first_token_s=30))
    again = Retry(attempts=2, on=("timeout",))
    last = await failed(runner_of(answering(retry=again, timeout_s=1.0), small=small), asked(q="why"))
    assert (last.failure.kind, last.node) == ("DeadlineExceeded", "answer")
    assert len(small.calls) == 2
    status = await small.engine.status()
    assert (status.running, status.aborted) == (0, 2)
    assert last.usage == Usage(prompt_tokens=2)
    assert small.calls[1].deadline > small.calls[0].deadline


async def test_a_pool_that_forgets_the_time_is_cut_off():
    class Forgetful(Flaky):
        async def generate(self, call):
            await asyncio.Event().wait()
            yield []

    last = await failed(runner_of(answering(timeout_s=0.3), small=Forgetful()), asked(q="why"))
    assert last.failure == Failure("DeadlineExceeded", "it took longer than 0.3 s")


async def test_the_deadline_of_the_run_is_the_last():
    """A pause that would pass it is not begun: the failure is told while there is time."""
    small = Flaky(Overloaded("full", retry_after_s=100.0))
    again = Retry(attempts=3, on=("overloaded",))
    last = await failed(runner_of(answering(retry=again), small=small), asked(q="why"))
    assert (last.failure.kind, len(small.calls)) == ("Overloaded", 1)


async def test_no_fallback_after_the_deadline():
    small = Flaky(script=FakeScript(first_token_s=30))
    fallback = (Fallback(value="late"),)
    last = await failed(runner_of(answering(fallback=fallback), small=small), asked(timeout_s=0.5, q="why"))
    assert last.failure.kind == "DeadlineExceeded"


async def test_fallbacks_in_turn():
    given = {"retry": AGAIN, "fallback": (Fallback(model="large"), Fallback(value="I do not know."))}
    small, large = Flaky(GONE, GONE, GONE), Flaky(EngineFailed("it broke"))
    events = await events_of(runner_of(answering(**given), small=small, large=large), asked(q="why"))
    assert told(events, NodeRetried, NodeFellBack, NodeFailed) == [
        NodeRetried("answer", 2, "unavailable"),
        NodeRetried("answer", 3, "unavailable"),
        NodeFellBack("answer", "model large", "unavailable"),
        NodeFellBack("answer", "value", "error"),
    ]
    assert events[-1].outputs == {"text": "I do not know.", "why": "fallback"}
    assert [call.model for call in large.calls] == ["large"]


async def test_a_fallback_that_answers_is_the_last():
    given = {"fallback": (Fallback(model="large"), Fallback(value="I do not know."))}
    events = await events_of(runner_of(answering(**given), small=Flaky(GONE)), asked(q="why"))
    assert told(events, NodeFellBack) == [NodeFellBack("answer", "model large", "unavailable")]
    assert [event.model for event in told(events, NodeCalled)] == ["small", "large"]
    assert events[-1].outputs["why"] != "fallback"


async def test_nodes_that_compute_have_policies_too():
    given = {"fallback": (Fallback(value="nothing"),)}
    ask = node("ask", Prompt(template="{{ x.y }}"), policies=given, x="${inputs.x}")
    made = runner_of(plan(ask, inputs=("x",), text="${ask.text}"))
    assert (await finished(made, asked(x={"y": 1}))).outputs == {"text": "1"}
    assert (await finished(made, asked(x={}))).outputs == {"text": "nothing"}


def mapping(**given):
    """items ─► all: map (each: llm) ─► all"""
    each = node("each", Llm(model="small", max_tokens=4), prompt="${item.value}", history=[])
    mapped = node(
        "all", Map(), {"body": body(each, text="${each.text}")}, policies=given, over="${inputs.items}"
    )
    return plan(mapped, inputs=("items",), all="${all.text}")


async def test_a_node_with_nodes_inside_starts_over_as_a_whole():
    small = Flaky(GONE)
    events = await events_of(runner_of(mapping(retry=AGAIN), small=small), asked(items=["a", "b"]))
    assert told(events, NodeFailed, NodeRetried) == [
        NodeFailed("all[0].each", GONE.as_failure()),
        NodeRetried("all", 2, "unavailable"),
    ]
    assert [len(text.split()) for text in events[-1].outputs["all"]] == [4, 4]
    ids = {call.request_id for call in small.calls}
    assert {"run-1.all[0].each", "run-1.all~2[0].each", "run-1.all~2[1].each"} <= ids
    assert len(ids) == len(small.calls)


async def test_what_was_cut_off_inside_is_owed():
    class Slow(Flaky):
        """Answers from the third call on."""

        slow = generator("small", FakeScript(first_token_s=30))

        def generate(self, call):
            self.calls.append(call)
            return self.slow.generate(call) if len(self.calls) <= 2 else self._pool.generate(call)

    small = Slow()
    again = Retry(attempts=2, on=("timeout",))
    made = runner_of(mapping(retry=again, timeout_s=2.0), small=small)
    events = await events_of(made, asked(items=["a", "b"]))
    assert told(events, NodeRetried) == [NodeRetried("all", 2, "timeout")]
    status = await small.slow.engine.status()
    assert (status.running, status.aborted) == (0, 2)
    tally = Tally()
    for event in events[:-1]:
        tally.add(event)
    assert tally.usage == events[-1].usage == Usage(2 + 2, 8)


async def test_a_failure_inside_may_be_tried_again_inside():
    each = node(
        "each",
        Llm(model="small", max_tokens=4),
        policies={"retry": AGAIN},
        prompt="${item.value}",
        history=[],
    )
    made = plan(node("all", Map(), {"body": body(each, text="${each.text}")}, over=["a"]), all="${all.text}")
    small = Flaky(GONE)
    events = await events_of(runner_of(made, small=small), asked())
    assert told(events, NodeRetried) == [NodeRetried("all[0].each", 2, "unavailable")]
    assert small.calls[1].request_id == "run-1.all[0].each~2"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (GONE, "unavailable"),
        (ReplicaLost(""), "unavailable"),
        (Overloaded(""), "overloaded"),
        (DeadlineExceeded(""), "timeout"),
        (EngineFailed(""), "error"),
        (InvalidCall(""), "error"),
        (NodeError(""), "error"),
        (NodeBroke("all[0].each", GONE), "unavailable"),
    ],
)
def test_causes(error, cause):
    assert cause_of(error) == cause


def test_pauses_grow_and_are_bounded(monkeypatch):
    monkeypatch.setattr(policies, "FIRST_PAUSE_S", 0.2)
    assert [pause_s(failures, 0.5) for failures in (1, 2, 3)] == pytest.approx([0.2, 0.4, 0.8])
    assert pause_s(1, 0.0) == pytest.approx(0.1)
    assert pause_s(1, 1.0) == pytest.approx(0.3)
    assert pause_s(50, 0.5) == MAX_PAUSE_S
