"""Calls that runs in several runners share, over one store."""

import asyncio
import time
from collections import Counter
from contextlib import aclosing

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.nodes.llm import Llm
from graphs.pipeline import Cache, Policies
from runtime.cache.claims import Asked, Claims
from runtime.cache.results import Results
from runtime.cache.savings import Savings
from runtime.cache.stored import StoredResults
from runtime.compiler.compile import compile_pipeline
from runtime.events import RunFailed, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from runtime.store.client import Store
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.executor.saving import (
    GREEDY,
    NEVER,
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

BROKE = Failure("EngineFailed", "broke")


class Held(Recorder):
    """Answers once it is let go."""

    def __init__(self, script: FakeScript | None = None) -> None:
        super().__init__(script)
        self.go = asyncio.Event()

    async def generate(self, call):
        self.calls.append(call)
        await self.go.wait()
        async with aclosing(self._pool.generate(call)) as chunks:
            async for chunk in chunks:
                yield chunk


def afar(store: Store) -> Savings:
    """Those of another runner on the same store each time. No claim lapses by itself while a test runs."""
    results = Results(StoredResults(store))
    return Savings(results, claims=Claims(results, lease_s=600.0))


def waits(savings: Savings) -> int:
    """For how many calls of other runners."""
    return 0 if savings.claims is None else savings.claims._waits


def digest_of(savings: Savings) -> str:
    """Of the one result that it has."""
    [(_, digest)] = savings.results._recent._values
    return digest


KEPT = ask(cache=Cache(600))


async def test_twelve_runs_in_three_runners_make_four_calls(store):
    made, pool = asking(KEPT), Held()
    savings = [afar(store) for _ in range(3)]
    runners = [runner(made, pool, each) for each in savings]
    asked = [asks(made, f"run-{number}", question=f"document {number % 4}") for number in range(12)]
    running = [asyncio.create_task(events_of(runners[number % 3], each)) for number, each in enumerate(asked)]
    await until(lambda: len(pool.calls) + sum(map(waits, savings)) == 12)
    pool.go.set()
    runs = await asyncio.gather(*running)
    assert len(pool.calls) == 4
    assert sorted(ended(run).source for run in runs) == ["node"] * 4 + ["shared"] * 8
    assert len({run[-1].outputs["o"] for run in runs}) == 4
    status = await pool.engine.status()
    owed = sum((run[-1].usage for run in runs), Usage())
    assert owed == Usage(status.prompt_tokens, status.completion_tokens)
    totals = sum((each.counts.totals for each in savings), Counter())
    assert totals["shared", "llm"] == totals["shared_afar", "llm"] == 8
    assert totals["cache_misses", "llm"] == 12
    assert totals["saved_tokens", "llm"] == 2 * owed.total_tokens


async def test_runs_of_one_runner_look_once_together(valkey_store):
    made, pool = asking(KEPT), Held()
    ours, theirs = afar(valkey_store), afar(valkey_store)
    first = asyncio.create_task(events_of(runner(made, pool, ours), asks(made)))
    await until(lambda: pool.calls)
    there = runner(made, pool, theirs)
    running = [asyncio.create_task(events_of(there, asks(made, str(number)))) for number in range(4)]
    await until(lambda: waits(theirs) and [each.riders for each in theirs.flights._flying.values()] == [4])
    pool.go.set()
    runs = await asyncio.gather(*running)
    assert [ended(run).source for run in runs] == ["shared"] * 4
    end = (await first)[-1]
    assert theirs.counts.totals == {
        ("cache_misses", "llm"): 1,
        ("shared", "llm"): 4,
        ("shared_afar", "llm"): 4,
        ("saved_tokens", "llm"): 4 * end.usage.total_tokens,
    }
    again = await events_of(there, asks(made, "again"))
    assert (ended(again).source, len(pool.calls)) == ("cache", 1)


async def test_a_run_elsewhere_whose_runner_is_killed_is_not_waited_for(valkey_store):
    """A claim that nobody renews is all that is left of it."""
    made, pool, ours = asking(KEPT), Recorder(), afar(valkey_store)
    dead = afar(valkey_store)
    await events_of(runner(made, Recorder(), dead), asks(made))
    await dead.results.flush()
    await valkey_store.execute("FLUSHALL")
    await dead.claims.seek(Asked("acme", digest_of(dead), 0.0, 0, time.time() + 60))
    run = asyncio.create_task(events_of(runner(made, pool, ours), asks(made)))
    await until(lambda: waits(ours))
    await valkey_store.execute("FLUSHALL")  # as if it had lapsed
    assert ended(await run).source == "node"
    assert len(pool.calls) == 1
    assert ours.counts.totals["awaited_in_vain", "llm"] == 1


async def test_a_run_elsewhere_that_fails_fails_alone(valkey_store):
    broken, pool = Held(FakeScript(rules=[Rule(contains="", failure=BROKE)])), Recorder()
    made, ours, theirs = asking(KEPT), afar(valkey_store), afar(valkey_store)
    first = asyncio.create_task(events_of(runner(made, broken, ours), asks(made)))
    await until(lambda: broken.calls)
    second = asyncio.create_task(events_of(runner(made, pool, theirs), asks(made, "run-2")))
    await until(lambda: waits(theirs))
    broken.go.set()
    assert (await first)[-1].failure == BROKE
    assert ended(await second).source == "node"
    assert (len(broken.calls), len(pool.calls)) == (1, 1)


async def test_a_run_elsewhere_that_is_cancelled_is_followed(valkey_store):
    made, ours, theirs = asking(KEPT), afar(valkey_store), afar(valkey_store)
    never, pool = Recorder(NEVER), Recorder()
    there = runner(made, never, ours)
    first = asyncio.create_task(events_of(there, asks(made, "run-1")))
    await until(lambda: never.calls)
    second = asyncio.create_task(events_of(runner(made, pool, theirs), asks(made, "run-2")))
    await until(lambda: waits(theirs))
    assert there.cancel("acme", "run-1")
    assert isinstance((await first)[-1], RunFailed)
    assert ended(await second).source == "node"
    await theirs.results.flush()
    assert await valkey_store.execute("KEYS", "*:cache-claim:*") == []


async def test_who_waits_for_a_run_elsewhere_may_be_cancelled(valkey_store):
    made, ours, theirs = asking(KEPT), afar(valkey_store), afar(valkey_store)
    pool = Held()
    first = asyncio.create_task(events_of(runner(made, pool, ours), asks(made, "run-1")))
    await until(lambda: pool.calls)
    here = runner(made, pool, theirs)
    second = asyncio.create_task(events_of(here, asks(made, "run-2")))
    await until(lambda: waits(theirs))
    assert here.cancel("acme", "run-2")
    end = (await second)[-1]
    assert (end.failure.kind, end.usage) == ("RunCancelled", Usage())
    pool.go.set()
    assert ended(await first).source == "node"
    assert len(pool.calls) == 1
    assert not waits(theirs)


async def test_who_has_little_time_does_not_wait_for_it_to_pass(valkey_store):
    made, ours, theirs = asking(KEPT), afar(valkey_store), afar(valkey_store)
    never, pool = Recorder(NEVER), Recorder()
    there = runner(made, never, ours)
    first = asyncio.create_task(events_of(there, asks(made, "run-1")))
    await until(lambda: never.calls)
    second = await events_of(runner(made, pool, theirs), asks(made, "run-2", timeout_s=6))
    assert ended(second).source == "node"
    assert theirs.counts.totals["awaited_in_vain", "llm"] == 1
    assert there.cancel("acme", "run-1")
    await first


async def test_tenants_wait_for_no_call_of_each_other_elsewhere(valkey_store):
    made, pool = asking(KEPT), Held()
    runners = [runner(made, pool, afar(valkey_store)) for _ in range(2)]
    runs = [
        asyncio.create_task(events_of(each, asks(made, tenant=tenant)))
        for tenant, each in zip("ab", runners, strict=True)
    ]
    await until(lambda: len(pool.calls) == 2)
    pool.go.set()
    assert [ended(await each).source for each in runs] == ["node"] * 2
    assert sorted(call.tenant for call in pool.calls) == ["a", "b"]


ALONE = {
    "without a cache": (asking(ask()), {}),
    "by policy": (asking(KEPT, Policies(share=False)), {}),
    "sampled": (asking(ask(Llm(model="m", max_tokens=8), cache=Cache(600))), {}),
    "streamed": (asking(ask(replace(GREEDY, stream=True), cache=Cache(600))), {"stream": True}),
}


@pytest.mark.parametrize("name", ALONE)
async def test_what_no_other_runner_waits_for(name, valkey_store):
    made, fields = ALONE[name]
    pool = Held()
    runners = [runner(made, pool, afar(valkey_store)) for _ in range(2)]
    runs = [
        asyncio.create_task(events_of(each, asks(made, str(number), **fields)))
        for number, each in enumerate(runners)
    ]
    await until(lambda: len(pool.calls) == 2)
    assert await valkey_store.execute("KEYS", "*:cache-claim:*") == []
    pool.go.set()
    assert [ended(await each).source for each in runs] == ["node"] * 2


async def test_the_only_runner_claims_nothing(valkey_store):
    made, pool = asking(KEPT), Recorder(NEVER)
    ours = runner(made, pool, Savings(Results(StoredResults(valkey_store))))
    run = asyncio.create_task(events_of(ours, asks(made)))
    await until(lambda: pool.calls)
    assert await valkey_store.execute("DBSIZE") == 0
    ours.cancel("acme", "run-1")
    await run


@given(bodied(), st.randoms(use_true_random=False))
@settings(max_examples=12, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking takes minutes
def test_runners_that_share_change_no_output(valkey_url, made, chance):
    """Runs in two runners at once, some of them cancelled at any moment."""
    plain = replace(made, policies=Policies(share=False))
    saving = replace(made, policies=Policies(cache=Cache(600)))

    async def outputs():
        models = pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))
        expected = await events_of(Runner([compile_pipeline(plain)], Resources(models)), asked(plain, "0"))
        store = Store.connect(valkey_url, timeout_s=20)
        await store.execute("FLUSHALL")
        savings = [afar(store) for _ in range(2)]
        runners = [Runner([compile_pipeline(saving)], Resources(models, savings=each)) for each in savings]
        runs = [
            asyncio.create_task(events_of(each, asked(saving, f"0-{number}")))
            for number in range(4)
            for each in runners
        ]
        ends = await asyncio.gather(*runs, *(cancelling(each, 0, chance) for each in runners))
        for each in savings:
            await each.results.flush()
        await store.close()
        running = [(await pool.engine.status()).running for pool in models.values()]
        return expected[-1], [each[-1] for each in ends if each is not None], running

    expected, ends, running = asyncio.run(outputs())
    finished = [end for end in ends if isinstance(end, RunFinished)]
    assert isinstance(expected, RunFinished)
    assert len(finished) >= 6
    for end in finished:
        assert sorted_json(end.outputs) == sorted_json(expected.outputs)
    assert {end.failure.kind for end in ends if isinstance(end, RunFailed)} <= {"RunCancelled"}
    assert running == [0] * len(running)
