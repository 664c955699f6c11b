"""Cases of a branch that begin before its conditions are known: earlier, for tokens that may be lost."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.nodes.approval import Approval
from graphs.nodes.llm import Llm
from graphs.pipeline import NodeId, Policies, Retry
from runtime.approvals.memory import MemoryApprovals
from runtime.approvals.model import Decision
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
    RunSuspended,
    Tally,
)
from runtime.executor.ahead import BUSY_CALLS
from runtime.executor.kinds.kind import Resources
from runtime.records.trace import Trace
from runtime.runner import Runner
from serve_apps.accounting.splitting import NodeTally
from tests.runtime.compiler.bodies import body, branched, mapped, node, pipeline
from tests.runtime.parts import events_of, generator, request

pytestmark = pytest.mark.leaping

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
NEVER = FakeScript(first_token_s=3600)
BROKEN = FakeScript(rules=[Rule(contains="", failure=Failure("EngineFailed", "broke"))])


def says(text: str, after_s: float = 0.25) -> FakeScript:
    return FakeScript(rules=[Rule(contains="", reply=text)], first_token_s=after_s)


def asks(model: str, prompt: str = "${inputs.question}", **more):
    return node(Llm(model=model, max_tokens=8, **more), prompt=prompt)


JUDGE = {"judge": asks("judge")}


def chosen(when="judge.text == 'easy'", *, around=JUDGE, cases=None, policies=None, **more):
    """`judge` decides whether `small` answers or `large`."""
    cases = cases or {"easy": asks("small"), "hard": asks("large")}
    first, second = (
        body({name: each}, text=f"${{{name}.text}}", when=test)
        for (name, each), test in zip(cases.items(), (when, None), strict=True)
    )
    x = replace(branched(first, second), **more)
    made = pipeline({**around, "x": x}, o="${x.text}")
    return replace(made, policies=policies or Policies(speculate=True), defaults={"o": None})


def runner(made, *, savings=None, journals=None, approvals=None, patience_s=60.0, **scripts: FakeScript):
    """And its pools, by the names of their models."""
    names = {"judge", "small", "large"} | scripts.keys()
    pools = {name: generator(name, scripts.get(name)) for name in names}
    resources = Resources(pools, savings=savings or Savings(), approvals=approvals)
    return Runner([compile_pipeline(made)], resources, None, journals, patience_s=patience_s), pools


async def told(made, asked=None, **parts) -> list:
    ours, _ = runner(made, **parts)
    return await events_of(ours, request(made, **({"inputs": INPUTS} | (asked or {}))))


def order_of(events, *kinds) -> list[tuple[type, str]]:
    return [(type(event), event.node) for event in events if isinstance(event, kinds)]


def dropped(events) -> list[str]:
    return [event.node for event in events if isinstance(event, NodesDropped)]


async def test_the_case_that_applies_has_run_already():
    made = chosen()
    events = await told(made, judge=says("easy"), large=NEVER)
    ends = [node for _, node in order_of(events, NodeFinished)]
    assert ends == ["x.0.easy", "judge", "x"]
    starts = [node for _, node in order_of(events, NodeStarted)]
    assert starts.index("x") < starts.index("x.0.easy")
    plain = chosen(policies=Policies())
    later = await told(plain, judge=says("easy"), large=NEVER)
    assert order_of(later, NodeStarted, NodeFinished)[2:] == [
        (NodeStarted, "x"),
        (NodeStarted, "x.0.easy"),
        (NodeFinished, "x.0.easy"),
        (NodeFinished, "x"),
    ]
    assert events[-1].outputs == later[-1].outputs
    assert events[-1].outputs["o"]


async def test_one_that_still_runs_is_waited_for():
    ours, pools = runner(
        made := chosen(), judge=says("hard"), small=NEVER, large=FakeScript(first_token_s=0.5)
    )
    events = await events_of(ours, request(made, inputs=INPUTS))
    ends = [node for _, node in order_of(events, NodeFinished)]
    assert (ends, dropped(events)) == (["judge", "x.1.hard", "x"], ["x.0"])
    assert events[-1].outputs["o"]
    assert (await pools["large"].engine.status()).completed == 1


async def test_one_that_does_not_apply_ends_in_the_engine():
    savings = Savings()
    ours, pools = runner(made := chosen(), judge=says("easy"), large=NEVER, savings=savings)
    asked = request(made, inputs=INPUTS)
    events = await events_of(ours, asked)
    (lost,) = (event for event in events if isinstance(event, NodesDropped))
    assert lost == NodesDropped("x.1", Usage(prompt_tokens=1))
    assert savings.counts.totals["lost_tokens", "branch"] == 1
    assert [savings.load.of(model) for model in pools] == [0, 0, 0]
    status = await pools["large"].engine.status()
    assert (status.running, status.aborted) == (0, 1)
    tally, split, trace = Tally(), NodeTally(), Trace(asked, 0.0)
    for event in events:
        tally.add(event)
        split.add(event)
        trace.add(event, 0.0)
    assert tally.usage == sum(split.split.values(), Usage()) == events[-1].usage
    said = {each.node: (each.status, each.dropped) for each in trace.record().nodes}
    assert said == {
        "judge": ("succeeded", False),
        "x": ("succeeded", False),
        "x.0.easy": ("succeeded", False),
        "x.1.hard": ("cancelled", True),
    }


async def test_where_no_case_applies_all_are_dropped():
    one = branched(body({"easy": asks("small")}, text="${easy.text}", when="judge.text == 'easy'"))
    made = replace(pipeline({**JUDGE, "x": one}, o="${x.text}"), defaults={"o": None})
    made = replace(made, policies=Policies(speculate=True))
    events = await told(made, judge=says("hard"))
    assert events[-1].outputs == {"o": None}
    (lost,) = (event for event in events if isinstance(event, NodesDropped))
    assert lost.node == "x.0"
    assert lost.usage.completion_tokens > 0


async def test_each_case_begins_when_what_it_takes_is_there():
    around = {**JUDGE, "first": asks("first")}
    cases = {"easy": asks("small", "${first.text}"), "hard": asks("large")}
    made = chosen(around=around, cases=cases)
    events = await told(made, judge=says("easy", 0.6), first=says("f", 0.2), large=says("l", 0.1))
    assert order_of(events, NodeStarted, NodeFinished, NodesDropped)[3:] == [
        (NodeStarted, "x.1.hard"),
        (NodeFinished, "x.1.hard"),
        (NodeFinished, "first"),
        (NodeStarted, "x.0.easy"),
        (NodeFinished, "x.0.easy"),
        (NodeFinished, "judge"),
        (NodesDropped, "x.1"),
        (NodeFinished, "x"),
    ]


async def test_a_case_begins_not_where_a_known_condition_speaks_against_it():
    cases = [
        body({"zero": asks("small")}, text="${zero.text}", when="inputs.level == 'b'"),
        body({"one": asks("small")}, text="${one.text}", when="judge.text == 'easy'"),
        body({"two": asks("large")}, text="${two.text}"),
    ]
    made = replace(pipeline({**JUDGE, "x": branched(*cases)}, o="${x.text}"), defaults={"o": None})
    made = replace(made, policies=Policies(speculate=True))
    for level, lost in (("a", ["x.2"]), ("b", [])):
        events = await told(made, {"inputs": INPUTS | {"level": level}}, judge=says("easy"))
        assert isinstance(events[-1], RunFinished)
        assert dropped(events) == lost


async def test_nor_where_that_is_known_while_other_cases_wait_for_what_they_take():
    around = {**JUDGE, "soon": asks("soon"), "late": asks("late")}
    cases = {"easy": asks("small", "${soon.text}"), "hard": asks("large", "${late.text}")}
    scripts = {"soon": says("s", 0.5), "late": says("l", 1.0)}
    for said, early in (("hard", []), ("easy", ["x.0.easy"])):
        events = await told(made := chosen(around=around, cases=cases), judge=says(said), **scripts)
        ends = [node for _, node in order_of(events, NodeFinished)]
        assert ends[: ends.index("late")][2:] == early
        assert dropped(events) == []
        assert made.nodes["x"].after == ()


async def test_a_failure_counts_only_where_the_case_applies():
    events = await told(chosen(), judge=says("hard"), small=BROKEN)
    assert any(isinstance(event, NodeFailed) for event in events)
    assert isinstance(events[-1], RunFinished)
    last = (await told(chosen(), judge=says("easy"), small=BROKEN))[-1]
    assert isinstance(last, RunFailed)
    assert (last.node, last.failure.message) == ("x.0.easy", "broke")


async def test_a_branch_that_is_tried_again_runs_its_case_again():
    events = await told(chosen(retry=Retry(2, on=("error",))), judge=says("easy"), small=BROKEN)
    assert isinstance(events[-1], RunFailed)
    starts = [node for _, node in order_of(events, NodeStarted)]
    assert sorted(starts) == ["judge", "x", "x.0.easy", "x.0.easy", "x.1.hard"]


async def test_the_time_of_a_branch_begins_when_its_conditions_are_known():
    made = chosen(timeout_s=10.0)
    events = await told(made, {"timeout_s": 900}, judge=says("easy", 60), large=NEVER)
    assert isinstance(events[-1], RunFinished)


async def test_it_ends_with_the_run():
    for judge in (BROKEN, NEVER):
        ours, pools = runner(made := chosen(), judge=judge, small=NEVER, large=NEVER)
        task = asyncio.create_task(events_of(ours, request(made, tenant="acme", inputs=INPUTS)))
        if judge is NEVER:
            while not (await pools["large"].engine.status()).running:
                await asyncio.sleep(0.001)
            assert ours.cancel("acme", "run-1")
        assert isinstance((await task)[-1], RunFailed)
        for model in ("small", "large"):
            assert (await pools[model].engine.status()).running == 0


async def test_what_does_not_begin_early():
    busy = Savings()
    for _ in range(BUSY_CALLS):
        busy.load.begun("large")
    streamed = {"easy": asks("small", stream=True), "hard": asks("large", stream=True)}
    bound = next(step for step in compile_pipeline(chosen()).steps if step.id == "x").token_bound
    cases = [
        (chosen(), {"savings": busy}, {}, ["x.0"]),
        (chosen(), {}, {"token_budget": bound - 1}, ["x.0"]),
        (chosen(), {}, {"token_budget": bound // 2 - 1}, []),
        (chosen(cases=streamed), {}, {"stream": True}, []),
    ]
    for made, parts, asked, begun in cases:
        events = await told(made, asked, judge=says("hard"), **parts)
        assert isinstance(events[-1], RunFinished)
        assert dropped(events) == begun


async def test_a_branch_with_a_condition_of_its_own_is_skipped_all_the_same():
    around = {**JUDGE, "gate": asks("gate")}
    for durability in ("none", "step"):
        made = chosen(around=around, when="judge.text == 'easy'")
        made = replace(made, nodes={**made.nodes, "x": replace(made.nodes["x"], when="gate.text == 'open'")})
        asked = {"durability": durability, "tenant": "acme"}
        parts = {"judge": says("easy", 0.1), "large": NEVER, "journals": MemoryJournals()}
        events = await told(made, asked, gate=says("shut"), **parts)
        assert events[-1].outputs == {"o": None}
        assert order_of(events, NodeSkipped, NodesDropped)[-2:] == [(NodeSkipped, "x"), (NodesDropped, "x")]
        tally = Tally()
        for event in events[:-1]:
            tally.add(event)
        assert tally.usage == events[-1].usage
        opened = await told(made, asked, gate=says("open"), **(parts | {"journals": MemoryJournals()}))
        assert opened[-1].outputs["o"]


async def test_inside_a_body_too():
    inner = chosen(around={"judge": asks("judge", "${item.value}")}).nodes
    made = pipeline({"all": mapped("${inputs.list}", body(inner, t="${x.text}"))}, o="${all.t}")
    made = replace(made, policies=Policies(speculate=True))
    ours, pools = runner(made, judge=says("easy"), large=NEVER)
    events = await events_of(ours, request(made, inputs=INPUTS))
    assert isinstance(events[-1], RunFinished)
    assert sorted(dropped(events)) == ["all[0].x.1", "all[1].x.1"]
    assert (await pools["large"].engine.status()).running == 0


async def test_a_case_that_was_done_ahead_is_not_done_again_by_another_runner():
    made, journals = chosen(), MemoryJournals()
    asked = request(made, tenant="acme", durability="step", inputs=INPUTS)
    ours, _ = runner(made, judge=NEVER, large=NEVER, journals=journals)
    run, seen = ours.run(asked), []
    async for event in run:
        seen.append(event)
        if isinstance(event, NodeFinished):
            assert event.node == "x.0.easy"
            journals._runs["acme", "run-1"].held_until = 0.0
            journals._runs["acme", "run-1"].token += 1
            break
    await run.aclose()
    assert not {"x", "judge"} & (await journals.read("acme", "run-1")).done.keys()
    ours, pools = runner(made, judge=says("easy"), journals=journals)
    await ours.take_up("acme", "run-1")
    events = [event async for batch in journals.follow("acme", "run-1", 0) for _, event in batch]
    alone = (await told(chosen(policies=Policies()), judge=says("easy")))[-1]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].outputs == alone.outputs
    assert (await pools["small"].engine.status()).completed == 0


async def test_a_run_may_be_suspended_while_a_case_is_done_and_a_person_decides():
    around = {"review": node(Approval(message="Is it?"), value="${inputs.question}")}
    made, journals, approvals = chosen("review.approved", around=around), MemoryJournals(), MemoryApprovals()
    asked = request(made, tenant="acme", durability="step", inputs=INPUTS)
    ours, pools = runner(made, journals=journals, approvals=approvals, patience_s=0.0)
    await ours.start(asked)
    events = [event async for batch in journals.follow("acme", "run-1", 0) for _, event in batch]
    assert isinstance(events[-1], RunSuspended)
    assert {"x.0.easy", "x.1.hard"} <= (await journals.read("acme", "run-1")).done.keys()
    await approvals.decide("acme", "run-1", "review", Decision(True))
    later, others = runner(made, journals=journals, approvals=approvals)
    await later.resume("acme", "run-1")
    events = [event async for batch in journals.follow("acme", "run-1", 0) for _, event in batch]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].outputs["o"]
    assert (await others["small"].engine.status()).completed == 0
    assert (await pools["small"].engine.status()).completed == 1


def test_a_plan_with_cases_that_begin_early_survives_being_written_down():
    plan = compile_pipeline(chosen(after=(NodeId("judge"),), cases=None))
    assert all(not step.cases_early for step in plan.steps)  # they come after what is looked at
    plan = compile_pipeline(chosen())
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=type(plan))
    assert [step.cases_early for step in again.steps] == [{}, {"0": (), "1": ()}]
