"""Nodes that run before their conditions are known: earlier, for tokens that may be lost."""

import asyncio

import pytest
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.pipeline import Policies
from runtime.cache.savings import Savings
from runtime.compiler.compile import compile_pipeline
from runtime.durability.memory import MemoryJournals
from runtime.events import (
    NodeFailed,
    NodeFinished,
    NodesDropped,
    NodeSkipped,
    NodeStarted,
    RunFailed,
    RunFinished,
    Tally,
)
from runtime.executor.ahead import BUSY_CALLS
from runtime.executor.kinds.kind import Resources
from runtime.records.trace import Trace
from runtime.runner import Runner
from serve_apps.accounting.splitting import NodeTally
from tests.runtime.compiler.bodies import body, mapped, node, pipeline
from tests.runtime.parts import Recorder, events_of, generator, request

pytestmark = pytest.mark.leaping

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
YES = FakeScript(rules=[Rule(contains="", reply="yes")], first_token_s=0.25)
NO = FakeScript(rules=[Rule(contains="", reply="no")], first_token_s=0.25)
NEVER = FakeScript(first_token_s=3600)
BROKEN = FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "broke"))])


def gated(policies: Policies | None = None, **more):
    """`large` judges whether what `m` answers is wanted."""
    nodes = {
        "judge": node(Llm(model="large", max_tokens=8), prompt="${inputs.question}"),
        "answer": node(
            Llm(model="m", max_tokens=8, **more), when="judge.text == 'yes'", prompt="${inputs.question}"
        ),
    }
    made = pipeline(nodes, o="${answer.text}")
    return replace(made, policies=policies or Policies(speculate=True), defaults={"o": None})


def runner(made, *, judge: FakeScript, m: FakeScript | None = None, savings=None, journals=None):
    """And the pool that answers."""
    pools = {"large": generator("large", judge), "m": Recorder(m)}
    resources = Resources(pools, savings=savings or Savings())
    return Runner([compile_pipeline(made)], resources, None, journals), pools["m"]


def order_of(events, *kinds) -> list[tuple[type, str]]:
    return [(type(event), event.node) for event in events if isinstance(event, kinds)]


async def test_a_node_that_is_wanted_has_run_already():
    ours, m = runner(made := gated(), judge=YES)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert order_of(events, NodeFinished) == [(NodeFinished, "answer"), (NodeFinished, "judge")]
    assert len(m.calls) == 1
    without, _ = runner(plain := gated(Policies()), judge=YES)
    later = await events_of(without, request(plain, inputs=INPUTS))
    assert order_of(later, NodeFinished) == [(NodeFinished, "judge"), (NodeFinished, "answer")]
    assert events[-1].outputs == later[-1].outputs
    assert events[-1].outputs["o"]


async def test_one_that_still_runs_is_waited_for():
    slow = FakeScript(first_token_s=0.5)
    ours, m = runner(made := gated(), judge=YES, m=slow)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert order_of(events, NodeStarted) == [(NodeStarted, "judge"), (NodeStarted, "answer")]
    assert order_of(events, NodeFinished) == [(NodeFinished, "judge"), (NodeFinished, "answer")]
    assert events[-1].outputs["o"]
    assert len(m.calls) == 1


async def test_one_that_is_not_wanted_ends_in_the_engine():
    savings = Savings()
    ours, m = runner(made := gated(), judge=NO, m=NEVER, savings=savings)
    asked = request(made, inputs=INPUTS)
    events = await events_of(ours, asked)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].outputs == {"o": None}
    assert order_of(events, NodeSkipped, NodesDropped) == [(NodeSkipped, "answer"), (NodesDropped, "answer")]
    (lost,) = (event.usage for event in events if isinstance(event, NodesDropped))
    assert lost == Usage(prompt_tokens=1)
    assert savings.counts.totals["lost_tokens", "llm"] == 1
    assert savings.load.of("m") == 0
    status = await m.engine.status()
    assert (status.running, status.aborted) == (0, 1)
    tally, split, trace = Tally(), NodeTally(), Trace(asked, 0.0)
    for event in events:
        tally.add(event)
        split.add(event)
        trace.add(event, 0.0)
    assert tally.usage == sum(split.split.values(), Usage()) == events[-1].usage
    told = {each.node: (each.status, each.dropped) for each in trace.record().nodes}
    assert told == {"judge": ("succeeded", False), "answer": ("skipped", True)}


async def test_one_that_was_done_in_vain_is_owed_and_absent():
    made = gated()
    more = node(Prompt("{{ text }}"), text="${answer.text}")
    made = replace(
        made,
        nodes={**made.nodes, "more": more},
        outputs={**made.outputs, **body({}, p="${more.text}").outputs},
    )
    ours, m = runner(made := replace(made, defaults={"o": None, "p": None}), judge=NO)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert events[-1].outputs == {"o": None, "p": None}
    (lost,) = (event.usage for event in events if isinstance(event, NodesDropped))
    status = await m.engine.status()
    assert lost == Usage(status.prompt_tokens, status.completion_tokens)
    assert lost.completion_tokens > 0


async def test_a_failure_counts_only_where_the_node_is_wanted():
    ours, _ = runner(made := gated(), judge=NO, m=BROKEN)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert any(isinstance(event, NodeFailed) for event in events)
    assert isinstance(events[-1], RunFinished)
    ours, _ = runner(made, judge=YES, m=BROKEN)
    last = (await events_of(ours, request(made, inputs=INPUTS)))[-1]
    assert isinstance(last, RunFailed)
    assert (last.node, last.failure.message) == ("answer", "broke")


async def test_it_ends_with_the_run():
    for judge in (BROKEN, NEVER):
        ours, m = runner(made := gated(), judge=judge, m=NEVER)
        task = asyncio.create_task(events_of(ours, request(made, tenant="acme", inputs=INPUTS)))
        if judge is NEVER:
            while not m.calls:
                await asyncio.sleep(0.001)
            assert ours.cancel("acme", "run-1")
        assert isinstance((await task)[-1], RunFailed)
        assert (await m.engine.status()).running == 0


async def test_where_nothing_begins_early():
    busy = Savings()
    for _ in range(BUSY_CALLS):
        busy.load.begun("m")
    made, streamed = gated(), gated(stream=True)
    bound = compile_pipeline(made).steps
    tokens = next(step.token_bound for step in bound if step.id == "answer")
    cases = [
        (made, {"savings": busy}, {}),
        (made, {}, {"token_budget": tokens - 1}),
        (streamed, {}, {"stream": True}),
        (made, {"journals": MemoryJournals()}, {"durability": "step", "tenant": "acme"}),
    ]
    for pipeline_, parts, asked in cases:
        ours, m = runner(pipeline_, judge=NO, **parts)
        events = await events_of(ours, request(pipeline_, inputs=INPUTS, **asked))
        assert isinstance(events[-1], RunFinished)
        assert not m.calls


async def test_inside_a_body_too():
    inner = {
        "judge": node(Llm(model="large", max_tokens=8), prompt="${item.value}"),
        "say": node(Llm(model="m", max_tokens=8), when="judge.text == 'yes'", prompt="${item.value}"),
    }
    made = pipeline({"all": mapped("${inputs.list}", body(inner, t="${say.text}"))}, o="${all.t}")
    ours, m = runner(made := replace(made, policies=Policies(speculate=True)), judge=NO, m=NEVER)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert events[-1].outputs == {"o": [None, None]}
    dropped = {event.node for event in events if isinstance(event, NodesDropped)}
    assert dropped == {"all[0].say", "all[1].say"}
    assert (await m.engine.status()).running == 0
