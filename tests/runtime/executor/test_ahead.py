"""Bodies that begin before they are chosen: earlier, for tokens that may be lost."""

import asyncio

import pytest
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.nodes.llm import Llm
from graphs.nodes.router import Router
from graphs.pipeline import Policies
from runtime.cache.savings import Savings
from runtime.compiler.compile import compile_pipeline
from runtime.events import (
    NodeDelta,
    NodeFailed,
    NodeFinished,
    NodesDropped,
    NodeStarted,
    RunFailed,
    RunFinished,
    Tally,
)
from runtime.executor.ahead import BUSY_CALLS, Candidate, may_begin
from runtime.executor.kinds.kind import Resources
from runtime.records.trace import Trace
from runtime.runner import Runner
from tests.runtime.compiler.bodies import body, node, pipeline
from tests.runtime.parts import Recorder, events_of, generator, request

pytestmark = pytest.mark.leaping

CHOOSES_B = FakeScript(rules=[Rule(contains="", reply='{"choice": "b"}')])
SLOWLY_B = FakeScript(rules=CHOOSES_B.rules, first_token_s=0.3)
NEVER = FakeScript(first_token_s=3600)
INPUTS = {"question": "why", "level": "a", "list": []}

SMALL = Candidate("a", frozenset({"m"}), 10, streams=False)
LARGE = Candidate("b", frozenset({"m", "n"}), 20, streams=True)


@pytest.mark.parametrize(
    ("load", "left", "stream", "begin"),
    [
        ({}, None, False, ("a", "b")),
        ({}, None, True, ("a",)),
        ({"m": BUSY_CALLS - 1}, None, False, ("a", "b")),
        ({"m": BUSY_CALLS}, None, False, ()),
        ({"n": BUSY_CALLS}, None, False, ("a",)),
        ({}, 30, False, ("a", "b")),
        ({}, 29, False, ()),
        ({}, 10, True, ("a",)),
    ],
)
def test_what_may_begin(load, left, stream, begin):
    assert may_begin([SMALL, LARGE], lambda model: load.get(model, 0), left, stream=stream) == begin


def routed(policies: Policies | None = None, **spec):
    """The model `small` chooses between `a`, answered by `large`, and `b`, answered by `m`."""
    inside = {
        key: body({f"say_{key}": node(Llm(model=model, max_tokens=8, **spec), prompt="${inputs.question}")})
        for key, model in (("a", "large"), ("b", "m"))
    }
    inside = {key: replace(each, outputs=outputs(key)) for key, each in inside.items()}
    router = Router(model="small", choices={"a": "one", "b": "another"}, max_prompt_tokens=99)
    made = pipeline({"x": node(router, bodies=inside, text="${inputs.question}")}, o="${x.text}")
    return replace(made, policies=policies or Policies(speculate=True), defaults={"o": None})


def outputs(key: str):
    return body({}, text=f"${{say_{key}.text}}").outputs


def runner(made, savings: Savings | None = None, *, small=CHOOSES_B, large=None, m=None):
    """And the pools of the two bodies."""
    pools = {
        "small": generator("small", small),
        "large": generator("large", large),
        "m": Recorder(m),
    }
    ours = Runner([compile_pipeline(made)], Resources(pools, savings=savings or Savings()))
    return ours, pools["large"], pools["m"]


def index(events, kind, path: str) -> int:
    return next(at for at, event in enumerate(events) if isinstance(event, kind) and event.node == path)


async def test_the_chosen_body_has_begun_before_it_was_chosen():
    ours, large, _ = runner(made := routed(), small=SLOWLY_B, large=NEVER)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert isinstance(events[-1], RunFinished)
    dropped = index(events, NodesDropped, "x.a")
    assert index(events, NodeFinished, "x.b.say_b") < dropped < index(events, NodeFinished, "x")
    status = await large.engine.status()
    assert (status.running, status.aborted) == (0, 1)


async def test_without_the_policy_nothing_begins_ahead():
    ours, large, _ = runner(made := routed(Policies()))
    events = await events_of(ours, request(made, inputs=INPUTS))
    started = [event.node for event in events if isinstance(event, NodeStarted)]
    assert started == ["x", "x.b.say_b"]
    assert (await large.engine.status()).completed == 0


async def test_both_ways_give_the_same():
    ends = []
    for policies in (Policies(), Policies(speculate=True)):
        ours, *_ = runner(made := routed(policies))
        ends.append((await events_of(ours, request(made, inputs=INPUTS)))[-1].outputs)
    assert ends[0] == ends[1]


async def test_what_is_lost_is_owed_and_told():
    savings = Savings()
    ours, large, m = runner(made := routed(), savings, small=SLOWLY_B)
    asked = request(made, inputs=INPUTS)
    events = await events_of(ours, asked)
    status = await large.engine.status()
    lost = Usage(status.prompt_tokens, status.completion_tokens)
    assert lost.completion_tokens > 0  # it was done before the choice was
    assert [event.usage for event in events if isinstance(event, NodesDropped)] == [lost]
    assert savings.counts.totals["lost_tokens", "router"] == lost.total_tokens
    tally, trace = Tally(), Trace(asked, 0.0)
    for event in events[:-1]:
        tally.add(event)
        trace.add(event, 0.0)
    assert tally.usage == events[-1].usage
    dropped = {each.node: each.dropped for each in trace.record().nodes}
    assert dropped == {"x": False, "x.a.say_a": True, "x.b.say_b": False}
    assert len(m.calls) == 1


async def test_a_body_that_fails_in_vain_harms_nobody():
    broken = FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "broke"))])
    ours, *_ = runner(made := routed(), small=SLOWLY_B, large=broken)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert any(isinstance(event, NodeFailed) and event.node == "x.a.say_a" for event in events)
    assert isinstance(events[-1], RunFinished)


async def test_a_chosen_body_that_has_failed_fails_the_run():
    broken = FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "broke"))])
    ours, *_ = runner(made := routed(), small=SLOWLY_B, m=broken)
    last = (await events_of(ours, request(made, inputs=INPUTS)))[-1]
    assert isinstance(last, RunFailed)
    assert (last.node, last.failure.message) == ("x.b.say_b", "broke")


async def test_a_choice_that_fails_ends_what_has_begun():
    broken = FakeScript(rules=[Rule(contains="", reply="neither")], first_token_s=0.05)
    ours, large, m = runner(made := routed(), small=broken, large=NEVER, m=NEVER)
    last = (await events_of(ours, request(made, inputs=INPUTS)))[-1]
    assert isinstance(last, RunFailed)
    for pool in (large, m):
        assert (await pool.engine.status()).running == 0


async def test_cancelling_the_run_ends_what_has_begun():
    ours, large, m = runner(made := routed(), small=NEVER, large=NEVER, m=NEVER)
    task = asyncio.create_task(events_of(ours, request(made, tenant="acme", inputs=INPUTS)))
    while not m.calls:
        await asyncio.sleep(0.001)
    assert ours.cancel("acme", "run-1")
    assert isinstance((await task)[-1], RunFailed)
    for pool in (large, m):
        assert (await pool.engine.status()).running == 0


async def test_under_load_nothing_begins_ahead():
    savings = Savings()
    for _ in range(BUSY_CALLS):
        savings.load.begun("large")
    ours, large, _ = runner(made := routed(), savings, small=SLOWLY_B)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert not any(isinstance(event, NodesDropped) for event in events)
    assert (await large.engine.status()).completed == 0
    assert savings.load.of("m") == savings.load.of("small") == 0


async def test_a_budget_that_cannot_pay_for_both_pays_for_one():
    made = routed(max_prompt_tokens=64)
    ours, large, _ = runner(made, small=SLOWLY_B)
    events = await events_of(ours, request(made, inputs=INPUTS, token_budget=100))
    assert isinstance(events[-1], RunFinished)
    assert (await large.engine.status()).completed == 0


async def test_what_streams_is_not_begun_where_the_run_wants_the_stream():
    ours, *_ = runner(made := routed(stream=True), small=SLOWLY_B)
    events = await events_of(ours, request(made, inputs=INPUTS, stream=True))
    assert not any(isinstance(event, NodesDropped) for event in events)
    assert {event.node for event in events if isinstance(event, NodeDelta)} == {"x.b.say_b"}
