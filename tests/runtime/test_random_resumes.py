"""Random pipelines, interrupted anywhere and gone on with by others, give what they give when left alone."""

import asyncio
import re
import time
from contextlib import aclosing

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engines.fake import FakeScript
from cluster.errors import ModelUnavailable
from cluster.messages import Usage
from graphs.pipeline import Pipeline, Policies
from runtime.compiler.compile import compile_pipeline
from runtime.durability.memory import MemoryJournals
from runtime.events import NodeFellBack, NodeFinished, NodeRetried, RunFailed, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.compiler.bodies import node, pipeline
from tests.runtime.compiler.random_bodies import SAMPLED, Seen, dollar, scopes
from tests.runtime.parts import finished, pools, request

INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}
MOST_ATTEMPTS = 30
_TRY = re.compile(r"~[0-9]+")


@st.composite
def needed(draw: st.DrawFn) -> Pipeline:
    """Pipelines like those of `bodied`, of which every node is needed, and some call a model."""
    seen = Seen(["inputs.question", "inputs.level"], ["inputs.list"], ["inputs.list"])
    nodes = draw(scopes(seen, 0))
    for index in range(2):
        nodes[f"z{index}"] = node(SAMPLED, prompt=dollar(draw(st.sampled_from(seen.texts))))
        seen.texts.append(f"z{index}.text")
    given = [name for name in seen.anything + seen.texts if not name.startswith("inputs.")]
    made = pipeline(nodes, **{f"o{index}": dollar(name) for index, name in enumerate(given)})
    return msgspec.structs.replace(made, defaults=dict.fromkeys(made.outputs))


class Called:
    """A pool that keeps the paths of the nodes that call it, and is out at some of its calls."""

    def __init__(self, pool, paths: list[str], out_at: set[int]) -> None:
        self._pool, self.paths, self._out_at = pool, paths, out_at
        self.info, self.count_tokens = pool.info, pool.count_tokens

    async def generate(self, call):
        attempt, _, path = call.request_id.partition(".")
        assert attempt.startswith("run-1")
        self.paths.append(_TRY.sub("", path.partition("+")[0]))
        if len(self.paths) in self._out_at:
            raise ModelUnavailable("out")
        async with aclosing(self._pool.generate(call)) as batches:
            async for batch in batches:
                yield batch


class Interrupted:
    """A run, and the runners that die at it."""

    def __init__(self, pipeline, out_at: set[int]) -> None:
        self.journals = MemoryJournals()
        self.calls: list[str] = []
        """Paths of the nodes that called a model."""
        models = _models()
        self._models = models | {
            name: Called(models[name], self.calls, out_at) for name in ("small", "large")
        }
        self._plan = compile_pipeline(pipeline)
        self._asked = request(pipeline, inputs=INPUTS, durability="step", stream=True)
        self.events: list = []
        self.runner = self._runner()

    def _runner(self) -> Runner:
        return Runner([self._plan], Resources(self._models), journals=self.journals)

    async def begin(self, most: int) -> None:
        """Until the runner dies, behind so many events, or the run is over."""
        async with aclosing(self.runner.run(self._asked)) as run:
            async for event in run:
                self.events.append(event)
                if len(self.events) == most:
                    self._die()
                    break

    async def go_on(self, most: int) -> None:
        """Another runner, until it dies behind so many events, or the run is over."""
        self.runner = self._runner()
        run = self.journals._runs["", "run-1"]
        if isinstance(self.events[-1], RunFailed):
            await self.runner.resume("", "run-1", time.time() + 60)
        else:
            await self.runner.take_up("", "run-1")
        seen = 0
        follow = self.journals.follow("", "run-1", len(self.events))
        async with aclosing(follow) as batches:
            async for batch in batches:
                self.events += [event for _, event in batch]
                seen += len(batch)
                if seen >= most and run.state == "running":
                    self._die()
                    return

    def _die(self) -> None:
        run = self.journals._runs["", "run-1"]
        for lease in self.runner.leases:
            self.runner.lose(lease)
        if run.state == "running":
            run.held_until = 0.0
            run.token += 1


def _models():
    return pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))


async def interrupted(pipeline, ends: list[int], out_at: set[int]) -> Interrupted:
    """A run that was gone on with until it was done. Nothing that was done is done again."""
    run = Interrupted(pipeline, out_at)
    await run.begin(ends[0])
    for attempt in range(1, MOST_ATTEMPTS):
        if isinstance(run.events[-1], RunFinished):
            break
        done = {event.node for event in run.events if isinstance(event, NodeFinished)}
        before = len(run.calls), len(run.events)
        await run.go_on(ends[attempt] if attempt < len(ends) else 10**6)
        began_again = {event.node for event in run.events[before[1] :] if isinstance(event, NodeRetried)}
        again = {path for path in run.calls[before[0] :] if path in done}
        assert not {path for path in again if not any(path.startswith(each) for each in began_again)}
    return run


@given(
    needed(),
    st.lists(st.integers(3, 25), min_size=1, max_size=4),
    st.sets(st.integers(1, 12), max_size=3),
    st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_same_outputs_and_nothing_twice(pipeline, ends, out_at, speculate):
    pipeline = msgspec.structs.replace(pipeline, policies=Policies(speculate=speculate))

    async def both():
        runner = Runner([compile_pipeline(pipeline)], Resources(_models()))
        alone = await finished(runner, request(pipeline, inputs=INPUTS))
        return alone, await interrupted(pipeline, ends, out_at)

    alone, run = asyncio.run(both())
    last = run.events[-1]
    assert isinstance(last, RunFinished)
    assert not any(isinstance(event, RunFinished) for event in run.events[:-1])
    if any(isinstance(event, NodeFellBack) for event in run.events):
        return
    assert msgspec.json.encode(last.outputs, order="sorted") == msgspec.json.encode(
        alone.outputs, order="sorted"
    )
    if not speculate and not any(isinstance(event, NodeRetried | RunFailed) for event in run.events):
        assert _total(last.usage) == _total(alone.usage)


def _total(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens
