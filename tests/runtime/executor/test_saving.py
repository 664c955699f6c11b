"""Answers that are kept, and calls that runs share: the same outputs for less."""

import asyncio
import time

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.nodes.llm import Llm
from graphs.pipeline import Cache, Fallback, Policies
from runtime.cache.results import Results
from runtime.cache.savings import Savings
from runtime.cache.stored import StoredResults
from runtime.compiler.compile import compile_pipeline
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFellBack,
    NodeFinished,
    NodeStarted,
    RunFailed,
    RunFinished,
)
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.compiler.bodies import body, branched, mapped, node, pipeline, prompt
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.executor.saving import (
    GREEDY,
    NEVER,
    SLOW,
    ask,
    asked,
    asking,
    asks,
    cancelling,
    ended,
    runner,
    sorted_json,
    until,
)
from tests.runtime.parts import Recorder, events_of, pools


async def test_an_answer_is_given_again():
    made, pool, savings = asking(ask(cache=Cache(600))), Recorder(), Savings()
    ours = runner(made, pool, savings)
    first = await events_of(ours, asks(made))
    again = await events_of(ours, asks(made, "run-2"))
    assert (ended(first).source, ended(again).source) == ("node", "cache")
    assert first[-1].outputs == again[-1].outputs
    assert first[-1].usage.total_tokens > 0
    assert (again[-1].usage, ended(again).usage) == (Usage(), None)
    assert [event for event in again if isinstance(event, NodeCalled)] == []
    assert len(pool.calls) == 1
    counts = savings.counts
    assert [counts.total(what) for what in ("cache_misses", "cache_hits")] == [1, 1]
    assert counts.totals["saved_tokens", "llm"] == first[-1].usage.total_tokens


async def test_another_question_or_tenant_has_its_own_answer():
    made, pool = asking(ask(cache=Cache(600))), Recorder()
    ours = runner(made, pool)
    for tenant, question in (("acme", "why"), ("acme", "how"), ("other", "why")):
        await events_of(ours, asks(made, tenant=tenant, question=question))
    assert len(pool.calls) == 3


async def test_another_version_of_the_model_answers_anew(valkey_store):
    made, savings = asking(ask(cache=Cache(600))), Savings(Results(StoredResults(valkey_store)))
    pool, other = Recorder(), Recorder()
    other.info = replace(other.info, version="2")
    await events_of(runner(made, pool, savings), asks(made))
    await events_of(runner(made, other, savings), asks(made))
    assert (len(pool.calls), len(other.calls)) == (1, 1)


async def test_runners_find_each_others_answers_in_the_store(store):
    made, pool = asking(ask(cache=Cache(600))), Recorder()
    ours, theirs = (Savings(Results(StoredResults(store))) for _ in range(2))
    await events_of(runner(made, pool, ours), asks(made))
    await ours.results.flush()
    again = await events_of(runner(made, pool, theirs), asks(made, "run-2"))
    foreign = await events_of(runner(made, pool, theirs), asks(made, "run-3", tenant="other"))
    assert (ended(again).source, ended(foreign).source) == ("cache", "node")
    assert len(pool.calls) == 2


async def test_what_is_too_old_is_made_again():
    made, pool = asking(ask(cache=Cache(0.001))), Recorder()
    ours = runner(made, pool)
    await events_of(ours, asks(made))
    began = time.time()
    await until(lambda: time.time() > began + 0.002)
    await events_of(ours, asks(made, "run-2"))
    assert len(pool.calls) == 2


async def test_the_policy_of_the_pipeline_caches_what_is_pure():
    pool, savings, policies = Recorder(), Savings(), Policies(cache=Cache(600))
    greedy, sampled = asking(ask(), policies), asking(ask(Llm(model="m", max_tokens=8)), policies)
    for made in (greedy, greedy, sampled, sampled):
        await events_of(runner(made, pool, savings), asks(made))
    assert len(pool.calls) == 3


async def test_the_text_of_a_kept_answer_is_told_where_the_run_wants_it_as_it_comes():
    made, pool = asking(ask(replace(GREEDY, stream=True), cache=Cache(600))), Recorder()
    ours = runner(made, pool)
    first = await events_of(ours, asks(made))
    again = await events_of(ours, asks(made, "run-2", stream=True))
    assert [event.text for event in again if isinstance(event, NodeDelta)] == [first[-1].outputs["o"]]
    assert ended(again).outputs["text"] == first[-1].outputs["o"]


async def test_a_node_with_nodes_inside_is_kept_as_a_whole():
    each = body({"y": node(GREEDY, prompt="${item.value}")}, text="${y.text}")
    inside = replace(mapped("${inputs.list}", each, max_items=4), cache=Cache(600))
    made, pool = pipeline({"x": inside}, o="${x.text}"), Recorder()
    ours = runner(made, pool)
    events = []
    for run_id, items in (("1", ["a", "b"]), ("2", ["a", "b"]), ("3", ["a", "c"])):
        events.append(await events_of(ours, asks(made, run_id, list=items)))
    assert [ended(each).source for each in events] == ["node", "cache", "node"]
    assert [event.node for event in events[1] if isinstance(event, NodeStarted)] == ["x"]
    assert events[0][-1].outputs == events[1][-1].outputs
    assert len(pool.calls) == 4


async def test_what_a_body_takes_from_around_it_is_part_of_the_question():
    case = body(
        {"y": node(GREEDY, prompt="${inputs.level}")}, when="size(inputs.question) > 2", t="${y.text}"
    )
    made = pipeline({"x": replace(branched(case), cache=Cache(600))}, o="${x.t}")
    ours = runner(replace(made, defaults={"o": None}), pool := Recorder())
    outputs = []
    for level, question in (("a", "why"), ("b", "why"), ("a", "y"), ("a", "why")):
        events = await events_of(ours, asks(made, question=question, level=level))
        outputs.append(events[-1].outputs["o"])
    assert outputs[0] == outputs[3] != outputs[1]
    assert outputs[2] is None
    assert len(pool.calls) == 2


async def test_what_a_fallback_gave_is_not_kept():
    script = FakeScript(rules=[Rule(contains="why", failure=Failure("EngineFailed", "broke"))])
    made = asking(ask(cache=Cache(600), fallback=(Fallback(value="sorry"),)))
    ours = runner(made, pool := Recorder(script))
    for run_id in ("run-1", "run-2"):
        assert (await events_of(ours, asks(made, run_id)))[-1].outputs == {"o": "sorry"}
    assert len(pool.calls) == 2


async def test_a_kept_answer_takes_the_place_of_a_node_that_fails():
    made = asking(ask(cache=Cache(0.001), fallback=(Fallback(cached=True),)))
    savings = Savings()
    good = await events_of(runner(made, Recorder(), savings), asks(made))
    began = time.time()
    await until(lambda: time.time() > began + 0.002)
    broken = FakeScript(rules=[Rule(contains="", failure=Failure("ModelUnavailable", "down"))])
    ours = runner(made, Recorder(broken), savings)
    events = await events_of(ours, asks(made, "run-2"))
    assert events[-1].outputs == good[-1].outputs
    assert NodeFellBack("x", "cached answer", "unavailable") in events
    assert ended(events).source == "cache"
    unknown = await events_of(ours, asks(made, "run-3", question="how"))
    assert isinstance(unknown[-1], RunFailed)
    assert unknown[-1].failure == Failure("ModelUnavailable", "down")
    assert not any(isinstance(event, NodeFellBack) for event in unknown)


async def test_twelve_runs_over_four_documents_make_four_shared_calls():
    digest = node(GREEDY, prompt="${inputs.level}")
    question = prompt("{{ d }} {{ q }}", d="${digest.text}", q="${inputs.question}")
    nodes = {"digest": digest, "both": question, "x": node(GREEDY, prompt="${both.text}")}
    made, pool = pipeline(nodes, o="${x.text}"), Recorder(SLOW)
    savings = Savings()
    ours = runner(made, pool, savings)
    asked = [
        asks(made, f"run-{number}", question=f"q{number}", level=f"document {number % 4}")
        for number in range(12)
    ]
    runs = await asyncio.gather(*(events_of(ours, each) for each in asked))
    assert len(pool.calls) == 4 + 12
    assert savings.counts.totals["shared", "llm"] == 8
    status = await pool.engine.status()
    owed = sum((run[-1].usage for run in runs), Usage())
    assert owed == Usage(status.prompt_tokens, status.completion_tokens)
    sources = [
        event.source
        for run in runs
        for event in run
        if isinstance(event, NodeFinished) and event.node == "digest"
    ]
    assert sorted(sources) == ["node"] * 4 + ["shared"] * 8


async def test_what_is_inside_nodes_is_shared_too():
    each = body({"y": node(GREEDY, prompt="${item.value}")}, text="${y.text}")
    made = pipeline({"x": mapped("${inputs.list}", each, max_items=4)}, o="${x.text}")
    ours = runner(made, pool := Recorder(SLOW))
    asked = [asks(made, str(number), list=["a", "b"]) for number in range(3)]
    runs = await asyncio.gather(*(events_of(ours, each) for each in asked))
    assert len({str(run[-1].outputs) for run in runs}) == 1
    assert len(pool.calls) == 2


UNSHARED = {
    "by policy": (asking(ask(), Policies(share=False)), {}),
    "sampled": (asking(ask(Llm(model="m", max_tokens=8))), {}),
    "streamed": (asking(ask(replace(GREEDY, stream=True))), {"stream": True}),
}


@pytest.mark.parametrize("name", UNSHARED)
async def test_what_is_not_shared(name):
    made, fields = UNSHARED[name]
    ours = runner(made, pool := Recorder(SLOW))
    await asyncio.gather(*(events_of(ours, asks(made, str(number), **fields)) for number in range(2)))
    assert len(pool.calls) == 2


async def test_tenants_share_no_call():
    made = asking(ask())
    ours = runner(made, pool := Recorder(SLOW))
    await asyncio.gather(*(events_of(ours, asks(made, each, tenant=each)) for each in ("a", "b")))
    assert sorted(call.tenant for call in pool.calls) == ["a", "b"]


async def test_the_run_that_began_a_call_may_be_cancelled():
    made = asking(ask())
    ours = runner(made, pool := Recorder(SLOW))
    first = asyncio.create_task(events_of(ours, asks(made, "run-1")))
    second = asyncio.create_task(events_of(ours, asks(made, "run-2")))
    await until(lambda: pool.calls)
    assert ours.cancel("acme", "run-1")
    ends = [(await each)[-1] for each in (first, second)]
    assert isinstance(ends[0], RunFailed)
    assert isinstance(ends[1], RunFinished)
    assert ends[0].usage == Usage()
    status = await pool.engine.status()
    assert (len(pool.calls), status.aborted) == (1, 0)
    assert ends[1].usage == Usage(status.prompt_tokens, status.completion_tokens)


async def test_the_run_that_began_a_call_may_run_out_of_time():
    made = asking(ask())
    ours = runner(made, Recorder(FakeScript(first_token_s=1.0)))
    runs = (events_of(ours, asks(made, "run-1", timeout_s=0.2)), events_of(ours, asks(made, "run-2")))
    ends = [each[-1] for each in await asyncio.gather(*runs)]
    assert isinstance(ends[0], RunFailed)
    assert isinstance(ends[1], RunFinished)


async def test_when_nobody_waits_any_more_the_engine_stops():
    made = asking(ask())
    ours = runner(made, pool := Recorder(NEVER))
    runs = [asyncio.create_task(events_of(ours, asks(made, each))) for each in ("run-1", "run-2")]
    await until(lambda: pool.calls and len(ours.running) == 2)
    for run_id in ("run-1", "run-2"):
        ours.cancel("acme", run_id)
    ends = [(await each)[-1] for each in runs]
    status = await pool.engine.status()
    assert (len(pool.calls), status.running, status.aborted) == (1, 0, 1)
    assert sum((end.usage for end in ends), Usage()) == Usage(prompt_tokens=1)


async def test_a_prompt_that_is_too_long_is_each_nodes_own_trouble():
    made = asking(ask(replace(GREEDY, max_prompt_tokens=1)))
    ours = runner(made, Recorder())
    asked = (asks(made, each, question="far too long") for each in ("run-1", "run-2"))
    ends = [each[-1] for each in await asyncio.gather(*(events_of(ours, each) for each in asked))]
    assert [end.failure.kind for end in ends] == ["InvalidCall"] * 2


@given(bodied(), st.randoms(use_true_random=False))
@settings(max_examples=20, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking takes minutes
def test_saving_changes_no_output(made, chance):
    """Several runs at once, some of them cancelled at any moment, twice over."""
    plain = replace(made, policies=Policies(share=False))
    saving = replace(made, policies=Policies(cache=Cache(600)))

    async def outputs():
        models = pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))
        expected = await events_of(Runner([compile_pipeline(plain)], Resources(models)), asked(plain, "0"))
        ours = Runner([compile_pipeline(saving)], Resources(models))
        ends = []
        for turn in range(2):
            runs = [
                asyncio.create_task(events_of(ours, asked(saving, f"{turn}-{number}"))) for number in range(4)
            ]
            ends += await asyncio.gather(*runs, cancelling(ours, turn, chance))
        running = [await pool.engine.status() for pool in models.values()]
        return expected[-1], [each[-1] for each in ends if each is not None], running

    expected, ends, engines = asyncio.run(outputs())
    finished = [end for end in ends if isinstance(end, RunFinished)]
    assert isinstance(expected, RunFinished)
    assert len(finished) >= 6
    for end in finished:
        assert sorted_json(end.outputs) == sorted_json(expected.outputs)
    assert {end.failure.kind for end in ends if isinstance(end, RunFailed)} <= {"RunCancelled"}
    assert [engine.running for engine in engines] == [0] * len(engines)
