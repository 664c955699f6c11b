"""`approval` in a run: it waits, says so, and goes on with what was decided."""

import asyncio
import time

import pytest

from graphs.nodes.approval import Approval
from graphs.nodes.value import Value
from runtime.approvals.memory import MemoryApprovals
from runtime.approvals.model import Decision
from runtime.events import NodeSkipped, NodeWaiting, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.executor.plans import asked, node, plan
from tests.runtime.parts import events_of, failed, pools

pytestmark = pytest.mark.leaping


def reviewed(policies=None):
    """review ─► send, where it was approved"""
    review = node("review", Approval(message="May it?"), policies=policies, value="${inputs.q}")
    send = node("send", Value(), when="review.approved", value="${review.value}")
    made = plan(review, send, inputs=("q",), sent="${send.value}", comment="${review.comment}")
    return made, MemoryApprovals()


def runner(made, approvals) -> Runner:
    return Runner([made], Resources(pools(), approvals=approvals))


async def decided(decision: Decision, **inputs):
    made, approvals = reviewed()
    events, _ = await asyncio.gather(
        events_of(runner(made, approvals), asked(**inputs)),
        approvals.decide("", "run-1", "review", decision),
    )
    assert approvals.waiting == {}
    return events


async def test_yes():
    events = await decided(Decision(True), q="a text")
    assert isinstance(events[-1], RunFinished)
    assert events[-1].outputs == {"sent": "a text", "comment": None}
    assert [each for each in events if isinstance(each, NodeWaiting)] == [NodeWaiting("review", "May it?")]


async def test_no():
    events = await decided(Decision(False, "too long"), q="a text")
    assert events[-1].outputs == {"sent": None, "comment": "too long"}
    assert [each.node for each in events if isinstance(each, NodeSkipped)] == ["send"]


async def test_a_value_in_its_place():
    events = await decided(Decision(True, value="another"), q="a text")
    assert events[-1].outputs["sent"] == "another"


async def test_what_is_shown():
    made, approvals = reviewed()
    run = asyncio.create_task(events_of(runner(made, approvals), asked(timeout_s=20, q={"a": 1})))
    while not approvals.waiting:
        await asyncio.sleep(0)
    ((place, question),) = approvals.waiting.items()
    assert place == ("", "run-1", "review")
    assert (question.message, question.value) == ("May it?", {"a": 1})
    assert question.asked <= time.time() < question.until <= question.asked + 20
    await approvals.decide("", "run-1", "review", Decision(True))
    await run


async def test_nobody_decides_in_time():
    made, approvals = reviewed()
    last = await failed(runner(made, approvals), asked(timeout_s=1.0, q="a"))
    assert (last.node, last.failure.kind) == ("review", "DeadlineExceeded")
    assert approvals.waiting == {}


async def test_the_time_out_of_the_node():
    made, approvals = reviewed({"timeout_s": 1.0})
    last = await failed(runner(made, approvals), asked(q="a"))
    assert (last.node, last.failure.kind) == ("review", "DeadlineExceeded")
    assert approvals.waiting == {}


async def test_where_nobody_can_be_asked():
    made, _ = reviewed()
    last = await failed(runner(made, None), asked(q="a"))
    assert "nobody can be asked" in last.failure.message
