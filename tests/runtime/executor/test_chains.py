"""Functions with processes of their own: joined by the compiler, run in chains, and without in the runner."""

import asyncio
import os
import time

import pytest

from cluster.compiled_graph import open_chain
from cluster.errors import ClusterError, ReplicaLost
from cluster.stages import Made, StageFailed
from graphs.builder import Builder
from graphs.functions import spec_of
from graphs.ports import STRING, list_of
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeFailed, NodeFinished, NodeRetried, NodeStarted, RunFailed
from runtime.executor.kinds.kind import Resources
from runtime.request import RunRequest
from runtime.runner import Runner
from tests.local_ray import local_ray
from tests.runtime.parts import events_of

HERE = "tests.graphs.sample_functions"


def asked(graph, **inputs):
    return RunRequest("run-1", graph, inputs, time.time() + 30)


class HereChain:
    """The stages, called here."""

    def __init__(self, name, stages, ready=True, dies=False):
        self.name = name
        self.ready = ready
        self.calls = 0
        self._dies = dies
        self._stages = [(stage.make(), stage.takes) for stage in stages]

    async def run(self, given):
        self.calls += 1
        if self._dies:
            raise ReplicaLost("gone")
        made = []
        for index, (compute, takes) in enumerate(self._stages):
            values = {
                port: (given if source.stage is None else made[source.stage].outputs)[source.key]
                for port, source in takes.items()
            }
            try:
                made.append(Made(compute(values), 0.5))
            except ClusterError as error:
                raise StageFailed(index, error) from error
        return made


class Chains:
    """Opens chains and keeps them."""

    def __init__(self, **how):
        self.made = []
        self._how = how

    def __call__(self, name, stages):
        self.made.append(HereChain(name, stages, **self._how))
        return self.made[-1]


def longest_word(last="longest"):
    b = Builder("longest-word")
    text = b.input("text", STRING)
    words = b.add("words", spec_of(f"{HERE}:words"), text=text)
    longest = b.add("longest", spec_of(f"{HERE}:longest"), words=words["value"], least=1)
    posted = b.add("post", spec_of(f"{HERE}:post"), text=longest["value"]) if last == "post" else longest
    b.output("word", posted["value"])
    return compile_pipeline(b.build())


def runner(plan, chains):
    return Runner([plan], Resources({}, open_chain=chains))


def test_neighbours_with_processes_of_their_own_are_one_compiled_step():
    (step,) = longest_word("post").steps
    assert step.backend == "compiled"
    assert [node.name for node in step.nodes] == ["words", "longest", "post"]


async def test_a_chain_runs_as_one_and_tells_of_each_node():
    chains = Chains()
    events = await events_of(runner(longest_word(), chains), asked("longest-word", text="a bee sees"))
    assert events[-1].outputs == {"word": "sees"}
    assert [(chain.name, chain.calls) for chain in chains.made] == [("words+longest", 1)]
    assert [event.node for event in events if isinstance(event, NodeStarted)] == ["words", "longest"]
    ended = [event for event in events if isinstance(event, NodeFinished)]
    assert [event.node for event in ended] == ["words", "longest"]
    assert all(event.seconds == pytest.approx(0.5, abs=0.1) for event in ended)


async def test_the_node_that_failed_in_a_chain_is_named():
    events = await events_of(runner(longest_word(), Chains()), asked("longest-word", text=" "))
    (failed,) = [event for event in events if isinstance(event, NodeFailed)]
    assert failed.node == "longest"
    assert "no words" in failed.failure.message
    assert isinstance(events[-1], RunFailed)
    assert events[-1].node == "longest"


async def test_until_a_chain_is_there_its_nodes_run_in_the_runner():
    chains = Chains(ready=False)
    events = await events_of(runner(longest_word(), chains), asked("longest-word", text="a bee"))
    assert events[-1].outputs == {"word": "bee"}
    assert chains.made[0].calls == 0


async def test_a_lost_chain_is_made_up_for_where_nothing_was_done():
    chains = Chains(dies=True)
    events = await events_of(runner(longest_word(), chains), asked("longest-word", text="a bee"))
    assert events[-1].outputs == {"word": "bee"}
    assert [event.node for event in events if isinstance(event, NodeRetried)] == ["words", "longest"]


async def test_a_lost_chain_with_effects_fails_the_run():
    chains = Chains(dies=True)
    events = await events_of(runner(longest_word("post"), chains), asked("longest-word", text="a bee"))
    assert isinstance(events[-1], RunFailed)
    assert events[-1].failure.kind == "ReplicaLost"


async def test_what_is_put_together_from_a_stage_goes_through_the_runner():
    b = Builder("together")
    text = b.input("text", STRING)
    one = b.add("one", spec_of(f"{HERE}:longest"), words=[text])
    two = b.add("two", spec_of(f"{HERE}:longest"), words=[one["value"], "abcdef"])
    b.output("word", two["value"])
    chains = Chains()
    events = await events_of(runner(compile_pipeline(b.build()), chains), asked("together", text="abc"))
    assert events[-1].outputs == {"word": "abcdef"}
    assert chains.made == []


async def test_a_function_alone_has_a_process_too():
    b = Builder("alone")
    b.output("words", b.add("words", spec_of(f"{HERE}:words"), text=b.input("text", STRING))["value"])
    for how, calls in (({}, 1), ({"ready": False}, 0), ({"dies": True}, 1)):
        chains = Chains(**how)
        events = await events_of(runner(compile_pipeline(b.build()), chains), asked("alone", text="a b"))
        assert events[-1].outputs == {"words": ["a", "b"]}
        assert [chain.calls for chain in chains.made] == [calls]


@pytest.fixture
def cluster():
    with local_ray():
        yield


async def test_real_processes(cluster):
    """Two functions of a run are in two processes, neither of them ours."""
    opened = []

    def opening(name, stages):
        opened.append(open_chain(name, stages))
        return opened[-1]

    b = Builder("processes")
    first = b.add("first", spec_of(f"{HERE}:process"), seen=b.input("seen", STRING))
    second = b.add("second", spec_of(f"{HERE}:longest"), words=b.input("words", list_of(STRING)))
    third = b.add("third", spec_of(f"{HERE}:process"), seen=second["value"])
    b.output("first", first["value"])
    b.output("third", third["value"])
    try:
        served = Runner([compile_pipeline(b.build())], Resources({}, open_chain=opening))
        async with asyncio.timeout(200):
            while not all(chain.ready for chain in opened):
                await asyncio.sleep(0.05)
        events = await events_of(served, asked("processes", seen="", words=["a"]))
        assert len({*events[-1].outputs.values(), os.getpid()}) == 3
    finally:
        for chain in opened:
            await chain.close()
