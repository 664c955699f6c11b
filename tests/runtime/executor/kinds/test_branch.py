"""`branch`: one case, the first that holds."""

import pytest

from graphs.nodes.branch import Branch
from graphs.nodes.value import Value
from runtime.events import NodeStarted
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import events_of, failed


def cases(last: bool):
    """q ─► pick: a when it is small, b when it is small or big, else c if there is an else ─► x, y"""
    bodies = {
        "0": body(node("step", Value(), value="a"), x="${step.value}", when="inputs.q == 'small'"),
        "1": body(node("step", Value(), value="b"), y="${step.value}", when="inputs.q in ['small', 'big']"),
    }
    if last:
        bodies["2"] = body(x="${inputs.q}")
    return plan(node("pick", Branch(), bodies), inputs=("q",), x="${pick.x}", y="${pick.y}")


@pytest.mark.parametrize(
    ("q", "last", "outputs"),
    [
        ("small", True, {"x": "a", "y": None}),
        ("big", True, {"x": None, "y": "b"}),
        ("other", True, {"x": "other", "y": None}),
        ("other", False, {"x": None, "y": None}),
    ],
)
async def test_the_first_case_that_holds_gives_the_outputs(q, last, outputs):
    assert await outputs_of(cases(last), q=q) == outputs


async def test_only_one_case_is_run():
    events = await events_of(runner_of(cases(True)), asked(q="small"))
    started = [event.node for event in events if isinstance(event, NodeStarted)]
    assert started == ["pick", "pick.0.step"]


async def test_a_condition_that_cannot_be_evaluated_fails_the_branch():
    bodies = {"0": body(x="${inputs.q}", when="inputs.q.size > 3")}
    last = await failed(
        runner_of(plan(node("pick", Branch(), bodies), inputs=("q",), x="${pick.x}")), asked(q={})
    )
    assert (last.failure.kind, last.node) == ("NodeError", "pick")
    assert last.failure.message == "the condition cannot be evaluated: there is no field size"
