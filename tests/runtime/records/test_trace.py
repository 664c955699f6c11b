"""Events in, record out."""

import msgspec
import pytest

from cluster.errors import EngineFailed
from cluster.messages import Usage
from runtime.errors import RunCancelled
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFailed,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeWaiting,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
)
from runtime.records import trace
from runtime.records.model import Kept, NodeRecord, RunFault, RunRecord
from runtime.records.trace import Trace
from runtime.request import RunRequest

REQUEST = RunRequest("run-1", "rag", {"question": "why"}, deadline=1_030.0, tenant="acme")
BEGUN = (0.0, RunStarted("run-1", "rag", "1.2.0", "hash"))
BASE = RunRecord(
    "run-1", "acme", "rag", "1.2.0", "hash", "running", 1_000.0, 1_030.0, inputs=Kept({"question": "why"})
)


def record(*timed) -> RunRecord:
    traced = Trace(REQUEST, started=1_000.0)
    for at, event in timed:
        traced.add(event, at)
    return traced.record()


def test_a_run_that_has_just_begun():
    assert record(BEGUN) == BASE


def test_a_run_that_succeeds():
    whole = record(
        BEGUN,
        (0.1, NodeStarted("search[0].each", "retrieve")),
        (0.1, NodeSkipped("extra", "llm", "its condition does not hold")),
        (0.4, NodeFinished("search[0].each", 0.25)),
        (0.4, NodeStarted("answer", "llm")),
        (0.5, NodeCalled("answer", "small", 7)),
        (0.6, NodeDelta("answer", "so")),
        (1.5, NodeFinished("answer", 1.0, Usage(7, 3))),
        (1.5, RunFinished({"text": "so"}, Usage(7, 3), 1.6)),
    )
    assert whole == msgspec.structs.replace(
        BASE,
        status="succeeded",
        seconds=1.6,
        usage=Usage(7, 3),
        outputs=Kept({"text": "so"}),
        nodes=[
            NodeRecord("search[0].each", "retrieve", "succeeded", 0.1, 0.25),
            NodeRecord("extra", "llm", "skipped", 0.1, reason="its condition does not hold"),
            NodeRecord("answer", "llm", "succeeded", 0.4, 1.0, Usage(7, 3)),
        ],
    )


def test_a_run_that_fails_says_where_and_what_was_going_on():
    failure = EngineFailed("it broke").as_failure()
    broken = record(
        BEGUN,
        (0.1, NodeStarted("a", "llm")),
        (0.2, NodeStarted("b", "llm")),
        (0.7, NodeFailed("a", failure)),
        (0.8, RunFailed(failure, Usage(5), 0.9, "a")),
    )
    assert (broken.status, broken.seconds, broken.usage) == ("failed", 0.9, Usage(5))
    assert broken.error == RunFault("EngineFailed", "it broke", "a")
    assert [(node.node, node.status) for node in broken.nodes] == [("a", "failed"), ("b", "cancelled")]
    assert [node.seconds for node in broken.nodes] == pytest.approx([0.6, 0.6])


def test_a_run_that_was_cancelled():
    ended = RunFailed(RunCancelled("the run was cancelled").as_failure(), Usage(), 0.9, "a")
    cancelled = record(BEGUN, (0.1, NodeStarted("a", "llm")), (0.9, ended))
    assert (cancelled.status, cancelled.nodes[0].status) == ("cancelled", "cancelled")


def test_a_run_in_the_middle():
    going = record(
        BEGUN,
        (0.1, NodeStarted("a", "llm")),
        (0.3, NodeFinished("a", 0.2, Usage(2, 1))),
        (0.3, NodeStarted("b", "llm")),
        (0.5, NodeDelta("b", "x")),
    )
    assert (going.status, going.seconds, going.usage) == ("running", 0.5, Usage(2, 1))
    assert going.nodes[1] == NodeRecord("b", "llm", "running", 0.3, pytest.approx(0.2))


def test_nodes_beyond_the_bound_are_counted(monkeypatch):
    monkeypatch.setattr(trace, "MAX_NODES", 2)
    many = [(0.1, NodeStarted(f"search[{index}].each", "retrieve")) for index in range(5)]
    done = [(0.2, NodeFinished(f"search[{index}].each", 0.1)) for index in range(5)]
    bounded = record(BEGUN, *many, *done)
    assert [node.node for node in bounded.nodes] == ["search[0].each", "search[1].each"]
    assert {node.status for node in bounded.nodes} == {"succeeded"}
    assert bounded.nodes_left_out == 3


def test_a_refused_run_has_no_record():
    refused = Trace(REQUEST, 1_000.0)
    refused.add(RunFailed(RunCancelled("x").as_failure(), Usage(), 0.0), 0.0)
    assert not refused.accepted


def test_what_runs_inside_a_node_that_starts_over_is_given_up():
    whole = record(
        BEGUN,
        (0.1, NodeStarted("search", "map")),
        (0.1, NodeStarted("search[3].pick", "branch")),
        (0.2, NodeStarted("search[3].pick.0.step", "llm")),
        (0.2, NodeStarted("searching", "llm")),
        (0.3, NodeStarted("search[4].pick", "branch")),
        (0.4, NodeFinished("search[4].pick", 0.1)),
        (0.5, NodeRetried("search", 2, "unavailable")),
        (0.6, NodeStarted("search[4].pick", "branch")),
        (0.7, NodeFellBack("search", "value", "unavailable")),
        (0.8, NodeFinished("search", 0.7)),
    )
    assert [(node.node, node.status, round(node.seconds, 3)) for node in whole.nodes] == [
        ("search", "succeeded", 0.7),
        ("search[3].pick", "cancelled", 0.4),
        ("search[3].pick.0.step", "cancelled", 0.3),
        ("searching", "running", 0.6),
        ("search[4].pick", "cancelled", 0.1),
    ]
    assert (whole.nodes[0].attempts, whole.nodes[0].fell_back_to) == (2, "value")


def test_a_node_that_waits_for_a_person():
    asked = [BEGUN, (0.1, NodeStarted("ask", "approval")), (0.2, NodeWaiting("ask", "May I?"))]
    waiting = record(*asked, (0.2, NodeWaiting("nobody", "May I?")))
    assert (waiting.status, waiting.nodes) == (
        "running",
        [NodeRecord("ask", "approval", "waiting", 0.1, pytest.approx(0.1))],
    )
    assert record(*asked, (9.0, NodeFinished("ask", 8.9))).nodes[0].status == "succeeded"
    ended = RunFailed(RunCancelled("the run was cancelled").as_failure(), Usage(), 9.0, "ask")
    assert record(*asked, (9.0, ended)).nodes[0].status == "cancelled"


def test_a_run_that_is_suspended_and_goes_on():
    asked = (
        BEGUN,
        (0.1, NodeStarted("all", "map")),
        (0.2, NodeStarted("all[0].review", "approval")),
        (0.2, NodeWaiting("all[0].review", "May it?")),
        (1.2, RunSuspended(["all[0].review"], Usage(5), 1.2)),
    )
    waiting = record(*asked)
    assert (waiting.status, waiting.usage, waiting.seconds) == ("suspended", Usage(5), 1.2)
    assert [(node.node, node.status) for node in waiting.nodes] == [
        ("all", "running"),
        ("all[0].review", "waiting"),
    ]
    again = record(*asked, (9.0, RunResumed("run-1", 2, 0)), (9.0, NodeStarted("all", "map")))
    assert again.status == "running"
    assert [(node.node, node.status) for node in again.nodes] == [
        ("all", "running"),
        ("all[0].review", "cancelled"),
    ]


def test_what_earlier_attempts_told_is_put_in_an_order():
    traced = Trace(REQUEST, started=1_000.0, attempt=2)
    traced.replay(
        [
            BEGUN[1],
            NodeStarted("a", "llm"),
            NodeFinished("a", 0.5, Usage(7)),
            NodeStarted("b", "llm"),
        ]
    )
    traced.add(RunResumed("run-1", 2, 1), 20.0)
    traced.add(NodeStarted("b", "llm"), 20.0)
    traced.add(NodeFinished("b", 1.0, Usage(1)), 21.0)
    traced.add(RunFinished({}, Usage(8), 21.0), 21.0)
    whole = traced.record()
    assert (whole.attempt, whole.status, whole.seconds, whole.usage) == (2, "succeeded", 21.0, Usage(8))
    assert whole.nodes == [
        NodeRecord("a", "llm", "succeeded", 0.0, 0.5, Usage(7)),
        NodeRecord("b", "llm", "succeeded", 20.0, 1.0, Usage(1)),
    ]
