"""Forks on the real runner: they give what they should, and run what was dropped and nothing else."""

import asyncio
from contextlib import aclosing

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engines.fake import FakeScript
from runtime.compiler.compile import compile_pipeline
from runtime.durability.forking import fork
from runtime.durability.memory import MemoryJournals
from runtime.events import NodeFinished, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.parts import events_of, pools, request

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
canonical = msgspec.json.Encoder(order="sorted").encode


async def forked(pipeline, choose):
    """What a run gave and what a fork of it gave, the paths it dropped and those of nodes that it ran."""
    plan, journals = compile_pipeline(pipeline), MemoryJournals()
    models = pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))
    runner = Runner([plan], Resources(models), journals=journals)
    asked = request(pipeline, inputs=INPUTS, tenant="acme", durability="step")
    first = (await events_of(runner, asked))[-1]
    assert isinstance(first, RunFinished), first
    kept = (await journals.read("acme", "run-1")).done
    nodes = sorted(path for path, each in kept.items() if "+" not in path and not each.skipped)
    if not nodes:
        return None
    path = choose(nodes)
    done = fork(plan, kept, path, kept[path].outputs)
    again = msgspec.structs.replace(asked, run_id="run-2", background=True)
    await runner.start(again, list(done.values()))
    events = []
    async with aclosing(journals.follow("acme", "run-2")) as batches:
        async for batch in batches:
            events += [each.event for each in batch]
    ran = {event.node for event in events if isinstance(event, NodeFinished)}
    dropped = {each for each in kept if each not in done and "+" not in each and not kept[each].skipped}
    inside = (f"{path}.", f"{path}[")
    wanted = {each for each in dropped if each in nodes and not each.startswith(inside)}
    kept_again = {each for each in done if "+" not in each and not done[each].skipped}
    return first, events[-1], wanted, ran, kept_again


@given(bodied(), st.data())
@settings(deadline=None, max_examples=15)
def test_a_fork_that_changes_nothing_gives_the_same(pipeline, data):
    found = asyncio.run(forked(pipeline, lambda nodes: data.draw(st.sampled_from(nodes))))
    if found is None:
        return
    first, last, wanted, ran, kept = found
    assert isinstance(last, RunFinished), last
    assert canonical(last.outputs) == canonical(first.outputs)
    assert wanted <= ran
    assert not ran & kept
