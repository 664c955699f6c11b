"""Pools, indexes and ways to run things that the tests of this package share."""

from __future__ import annotations

import time
from contextlib import aclosing

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import ModelInfo
from cluster.messages import Embed, Generate
from cluster.pools.local import LocalPool
from graphs.documents import Document
from graphs.pipeline import Pipeline
from runtime.compiler.compile import compile_pipeline
from runtime.events import RunEvent, RunFailed, RunFinished
from runtime.executor.call import Call
from runtime.executor.kinds.kind import Resources
from runtime.executor.loop import Execution
from runtime.executor.prepare import PreparedBody, PreparedNode
from runtime.executor.queue import EventQueue
from runtime.executor.run import Run, RunScope
from runtime.request import RunRequest
from runtime.runner import Runner

DIMENSION = 384


def generator(name: str, script: FakeScript | None = None, max_context: int = 8192) -> LocalPool:
    info = ModelInfo(name, "generate", max_context, 64, keeps_prefixes=True)
    return LocalPool(info, FakeEngine(script or FakeScript()), FakeTokenCounter())


def embedder(name: str = "embedder", max_context: int = 512, script: FakeScript | None = None) -> LocalPool:
    engine = FakeEngine(script or FakeScript(dimension=DIMENSION))
    return LocalPool(ModelInfo(name, "embed", max_context, 1), engine, FakeTokenCounter())


def pools(**scripts: FakeScript) -> dict[str, LocalPool]:
    """The models that the shapes name, with the scripts given for them."""
    made = {name: generator(name, scripts.get(name)) for name in ("small", "large")}
    return made | {"embedder": embedder()}


class Recorder:
    """A pool `m` that keeps the calls it passes on."""

    def __init__(self, script: FakeScript | None = None, task: str = "generate") -> None:
        self._pool = generator("m", script) if task == "generate" else embedder("m", script=script)
        self.calls: list[Generate | Embed] = []
        self.info = self._pool.info
        self.engine = self._pool.engine
        self.count_tokens = self._pool.count_tokens

    def generate(self, call):
        self.calls.append(call)
        return self._pool.generate(call)

    async def embed(self, call):
        self.calls.append(call)
        return await self._pool.embed(call)


class Shelf:
    """An index that finds the same documents for every vector."""

    version = "1"

    def __init__(self) -> None:
        self.searched: list[tuple[list[float], int]] = []

    def search(self, vector: list[float], top_k: int) -> list[Document]:
        self.searched.append((vector, top_k))
        return [Document(str(i), f"passage {i}", "docs/a.md", "A", i, 0.5) for i in range(top_k)]


def make_runner(pipeline: Pipeline, models: dict[str, LocalPool] | None = None) -> Runner:
    return Runner(
        [compile_pipeline(pipeline)], Resources(pools() if models is None else models, {"manual": Shelf()})
    )


def request(pipeline: Pipeline, timeout_s: float = 30, **fields) -> RunRequest:
    """A run that asks `why`, unless `fields` says otherwise."""
    given = {"run_id": "run-1", "graph": pipeline.metadata.name, "inputs": {"question": "why"}}
    return RunRequest(**(given | {"deadline": time.time() + timeout_s} | fields))


async def events_of(runner: Runner, asked: RunRequest) -> list[RunEvent]:
    async with aclosing(runner.run(asked)) as events:
        return [event async for event in events]


async def finished(runner: Runner, asked: RunRequest) -> RunFinished:
    last = (await events_of(runner, asked))[-1]
    assert isinstance(last, RunFinished), last
    return last


async def failed(runner: Runner, asked: RunRequest) -> RunFailed:
    last = (await events_of(runner, asked))[-1]
    assert isinstance(last, RunFailed), last
    return last


def node_call(scope: RunScope, queue: EventQueue, name: str, priority: int) -> Call:
    """The call of a node that is alone in its run."""
    run = Run(scope, queue)
    nothing = PreparedBody(steps=(), roots=(), given=(), captured=(), outputs=(), readers=())
    node = PreparedNode(name, "", inputs=(), outputs=(), evaluate=None, perform=None)
    return Call(run, Execution(nothing, run, {}), node, priority)
