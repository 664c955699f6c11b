"""Beginnings of prompts that are read before the calls are made."""

import asyncio

import pytest
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.interface import ModelInfo
from cluster.messages import Failure, Usage
from graphs.nodes.llm import Llm
from graphs.pipeline import Policies
from runtime.cache.savings import Savings
from runtime.cache.warmth import Prefix
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeFinished, PrefixRead, RunFailed, RunFinished, Tally
from runtime.executor.ahead import BUSY_CALLS
from runtime.executor.kinds.kind import Resources
from runtime.executor.warming import BEHIND_ALL
from runtime.records.trace import Trace
from runtime.runner import Runner
from tests.runtime.compiler.bodies import body, mapped, node, pipeline
from tests.runtime.parts import Recorder, events_of, generator, request

pytestmark = pytest.mark.leaping

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
SYSTEM = "word " * 199 + "word"
"""200 tokens of the fake engine."""
HEAD = "Read this now: "
ANSWER = Llm(model="m", prompt=HEAD + "{{ text }}", system=SYSTEM, max_tokens=8, max_prompt_tokens=4096)
LOOKS = Llm(model="large", max_tokens=8)
SLOW = FakeScript(first_token_s=0.25)
NEVER = FakeScript(first_token_s=3600)
READ = Usage(203, 1)


def looks_then_answers(policies: Policies | None = None):
    """`large` writes for a while, and what it wrote is read by `m`."""
    nodes = {
        "look": node(LOOKS, prompt="${inputs.question}"),
        "answer": node(ANSWER, text="${look.text}"),
    }
    return replace(pipeline(nodes, o="${answer.text}"), policies=policies or Policies(warm=True))


def runner(made, *, savings: Savings | None = None, large: FakeScript = SLOW, m: FakeScript | None = None):
    """And the pool of the model that is warmed."""
    pools = {"large": generator("large", large), "m": Recorder(m)}
    ours = Runner([compile_pipeline(made)], Resources(pools, savings=savings or Savings()))
    return ours, pools["m"]


def read(events) -> list[PrefixRead]:
    return [event for event in events if isinstance(event, PrefixRead)]


async def test_the_beginning_is_read_while_the_run_waits_for_something_else():
    savings = Savings()
    ours, m = runner(made := looks_then_answers(), savings=savings)
    events = await events_of(ours, request(made, inputs=INPUTS, tenant="acme"))
    warm, real = m.calls
    assert (warm.max_tokens, warm.priority, warm.tenant) == (1, BEHIND_ALL, "acme")
    assert warm.request_id != real.request_id
    assert warm.session == real.session, "one replica reads both"
    first, last = warm.messages
    assert first == real.messages[0]
    assert (last.role, last.content) == ("user", HEAD)
    assert real.messages[1].content.startswith(HEAD)
    assert read(events) == [PrefixRead("answer", "m", READ)]
    ends = [event.node for event in events if isinstance(event, NodeFinished | PrefixRead)]
    assert ends == ["answer", "look", "answer"]
    assert savings.counts.totals["warmed_tokens", "llm"] == READ.total_tokens


async def test_it_is_owed_and_told():
    ours, _ = runner(made := looks_then_answers())
    asked = request(made, inputs=INPUTS)
    events = await events_of(ours, asked)
    tally, trace = Tally(), Trace(asked, 0.0)
    for event in events[:-1]:
        tally.add(event)
        trace.add(event, 0.0)
    nodes = sum((event.usage for event in events if isinstance(event, NodeFinished)), Usage())
    assert tally.usage == events[-1].usage == nodes + READ
    assert [each.node for each in trace.record().nodes] == ["look", "answer"]


async def test_outputs_are_the_same_without():
    ends = []
    for policies in (Policies(), Policies(warm=True)):
        ours, m = runner(made := looks_then_answers(policies))
        ends.append((await events_of(ours, request(made, inputs=INPUTS)))[-1].outputs)
        assert len(m.calls) == 1 + policies.warm
    assert ends[0] == ends[1]


async def test_what_was_read_lately_is_not_read_again_for_the_same_tenant():
    ours, m = runner(made := looks_then_answers(), savings=(savings := Savings()))
    for number, tenant in enumerate(["acme", "acme", "other"]):
        asked = request(made, run_id=f"run-{number}", tenant=tenant, inputs=INPUTS)
        assert len(read(await events_of(ours, asked))) == (number != 1)
    (answer,) = (each for step in compile_pipeline(made).steps for each in step.nodes if each.warm)
    assert savings.warmth.has(Prefix("m", "acme", answer.prefix))
    assert len(m.calls) == 5


async def test_a_call_that_was_made_warms_as_well():
    plain, warm = looks_then_answers(Policies()), looks_then_answers()
    plain = replace(plain, metadata=replace(plain.metadata, name="plain"))
    pools = {"large": generator("large", SLOW), "m": Recorder()}
    ours = Runner([compile_pipeline(each) for each in (plain, warm)], Resources(pools))
    await events_of(ours, request(plain, inputs=INPUTS))
    assert not read(await events_of(ours, request(warm, run_id="run-2", inputs=INPUTS)))


async def test_several_items_read_it_once():
    inner = body({"look": node(LOOKS, prompt="${item.value}"), "say": node(ANSWER, text="${look.text}")})
    inner = replace(inner, outputs=body({}, t="${say.text}").outputs)
    made = pipeline({"all": mapped("${inputs.list}", inner)}, o="${all.t}")
    ours, m = runner(made := replace(made, policies=Policies(warm=True)))
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert isinstance(events[-1], RunFinished)
    assert [event.node for event in read(events)] == ["all[0].say"]
    assert len(m.calls) == 3


async def test_it_is_read_when_the_last_call_of_the_model_has_ended():
    nodes = {
        "ask": node(Llm(model="m", max_tokens=8), prompt="${inputs.question}"),
        "look": node(LOOKS, prompt="${ask.text}"),
        "answer": node(ANSWER, text="${look.text}"),
    }
    made = replace(pipeline(nodes, o="${answer.text}"), policies=Policies(warm=True))
    ours, m = runner(made)
    events = await events_of(ours, request(made, inputs=INPUTS))
    ends = [event.node for event in events if isinstance(event, NodeFinished | PrefixRead)]
    assert ends == ["ask", "answer", "look", "answer"]
    assert [call.max_tokens for call in m.calls] == [8, 1, 8]


async def test_it_ends_when_the_call_is_made():
    slow = FakeScript(rules=[Rule(contains=HEAD, reply="it is")], first_token_s=1.0)
    ours, m = runner(made := looks_then_answers(), large=FakeScript(first_token_s=0.01), m=slow)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert isinstance(events[-1], RunFinished)
    assert read(events) == [PrefixRead("answer", "m", Usage(READ.prompt_tokens))]
    status = await m.engine.status()
    assert (status.running, status.completed, status.aborted) == (0, 1, 1)


async def test_it_ends_with_the_run():
    ours, m = runner(made := looks_then_answers(), large=NEVER, m=NEVER)
    task = asyncio.create_task(events_of(ours, request(made, tenant="acme", inputs=INPUTS)))
    while not m.calls:
        await asyncio.sleep(0.001)
    assert ours.cancel("acme", "run-1")
    assert isinstance((await task)[-1], RunFailed)
    assert (await m.engine.status()).running == 0


async def test_its_failure_is_nobodys():
    broken = Rule(contains=HEAD, failure=Failure("EngineFailed", "broke"))
    script = FakeScript(rules=[Rule(contains=HEAD + " ", reply="fine"), broken])
    made = looks_then_answers()
    ours, _ = runner(made, m=script)
    last = (await events_of(ours, request(made, inputs=INPUTS)))[-1]
    assert isinstance(last, RunFailed)  # the call itself is broken too
    assert (last.node, last.failure.message) == ("answer", "broke")
    ours, _ = runner(made, large=NEVER, m=script)
    task = asyncio.create_task(events_of(ours, request(made, timeout_s=1.0, inputs=INPUTS)))
    events = await task
    assert [event.usage for event in read(events)] == [Usage(READ.prompt_tokens)]
    assert events[-1].failure.kind == "DeadlineExceeded"


async def test_under_load_nothing_is_read_ahead():
    savings = Savings()
    for _ in range(BUSY_CALLS):
        savings.load.begun("m")
    ours, m = runner(made := looks_then_answers(), savings=savings)
    assert not read(await events_of(ours, request(made, inputs=INPUTS)))
    assert len(m.calls) == 1
    assert savings.load.of("m") == BUSY_CALLS


async def test_a_budget_below_what_the_plan_may_use_pays_for_no_more_than_the_nodes():
    made = looks_then_answers()
    bound = compile_pipeline(made).token_bound
    for budget, times in ((bound, 1), (bound - 1, 0)):
        ours, _ = runner(made)
        events = await events_of(ours, request(made, inputs=INPUTS, token_budget=budget))
        assert isinstance(events[-1], RunFinished)
        assert len(read(events)) == times


async def test_a_pool_that_keeps_no_prefixes_is_left_alone():
    ours, m = runner(made := looks_then_answers())
    m.info = ModelInfo("m", "generate", 8192, 64)
    ours = Runner([compile_pipeline(made)], Resources({"large": generator("large"), "m": m}))
    assert not read(await events_of(ours, request(made, inputs=INPUTS)))
    assert len(m.calls) == 1
