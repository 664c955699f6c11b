"""Chains of Python stages, each in a warm process of its own, joined by a Ray Compiled Graph.

    given ─► load ─► clean ─► score        a call goes down the chain through shared memory, well under a
                └──────────────►┘          millisecond a hop; each stage works on a call of its own

A compiled graph takes actor methods only, holds ten calls at most, and falls when one of its actors dies. So
the actors belong to the chain, calls beyond its room wait here, and after a death the chain is made again:
`Chain.run` says `ReplicaLost` meanwhile. Ray tells of a death by the calls that are in the graph, and now and
then leaves one of them waiting: so the chain looks at its processes itself too.
https://docs.ray.io/en/latest/ray-core/compiled-graph/ray-compiled-graph.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

import ray
from ray.dag import InputNode, MultiOutputNode
from ray.exceptions import RayError, RayTaskError

from cluster.errors import ClusterError, EngineFailed, Overloaded, ReplicaLost
from cluster.stages import Made, Stage, StageFailed, Values

logger = logging.getLogger(__name__)

MAX_IN_CHAIN = 8
"""Calls in one chain at a time. Ray raises at ten."""
MAX_WAITING = 1_000
"""Calls that may wait for room."""
START_TIMEOUT_S = 120.0
"""Longest that its processes may take to be there: for want of room on the cluster, as a rule."""
RESTART_PAUSE_S = 1.0
"""Between two tries to make a chain again."""
LAST_WORDS_S = 2.0
"""In which calls may still hear from Ray what became of them, when a process has died."""


class Chain:
    """A `StageChain`; each stage comes after those that it takes from. `start` before use, `close` when done.

    Belongs to the event loop and to the Ray worker in which it is made. If a process dies the calls in the
    chain fail, and it is made again by itself.
    """

    def __init__(self, name: str, stages: Sequence[Stage], selector: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._stages = tuple(stages)
        self._selector = dict(selector or {})
        self._room = asyncio.Semaphore(MAX_IN_CHAIN)
        self._waiting = 0
        self._calls: set[asyncio.Task[list[Made]]] = set()
        self._compiled: _Compiled | None = None
        self._restart: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether `run` can be called now."""
        return self._compiled is not None

    def keep(self) -> None:
        """Begins to start it, and tries until it is up."""
        self._restart = asyncio.create_task(self._keep_starting())

    async def start(self) -> None:
        """Returns when every process is warm. Raises `ReplicaLost` where one cannot be made."""
        try:
            actors = await asyncio.to_thread(_warm, self._stages, self._selector)
            # Takes a third of a second, and must be done on the loop that the graph belongs to.
            self._compiled = _Compiled(actors, self._stages)
            self._watch = asyncio.create_task(self._watch_over(self._compiled))
        except RayError as error:
            raise ReplicaLost(f"the stages {self._name} cannot start: {_told(error)}") from error

    async def run(self, given: Values) -> list[Made]:
        """What each stage made, in their order.

        Raises what `StageChain` says, and `EngineFailed` for a stage that raised anything else.

        A call that is cancelled runs to its end in the chain, and nobody hears of it.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} calls wait for the stages {self._name}", retry_after_s=1.0)
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        call = asyncio.create_task(self._call(given))
        self._calls.add(call)
        call.add_done_callback(self._leave)
        return await asyncio.shield(call)

    async def close(self) -> None:
        """Ends its processes."""
        tasks = [task for task in (self._restart, self._watch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        compiled, self._compiled = self._compiled, None
        if compiled is not None:
            await asyncio.to_thread(compiled.tear_down)

    def _leave(self, call: asyncio.Task[list[Made]]) -> None:
        self._calls.discard(call)
        self._room.release()
        if not call.cancelled():
            call.exception()  # seen by whoever waited, if anybody still did

    async def _call(self, given: Values) -> list[Made]:
        compiled = self._compiled
        if compiled is None:
            raise ReplicaLost(f"the stages {self._name} are being started")
        try:
            return await compiled.call(given)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StageFailed):
                raise cause from None
            raise EngineFailed(f"a stage of {self._name} raised {type(cause).__name__}") from error
        except asyncio.CancelledError:
            if compiled is self._compiled:
                raise  # the event loop ends
            raise ReplicaLost(f"a process of the stages {self._name} died") from None
        except (RayError, TypeError) as error:
            # Of a graph whose actor died the futures fail to unpack the error they hold: a TypeError.
            self._lost(compiled)
            raise ReplicaLost(f"a process of the stages {self._name} died") from error

    def _lost(self, compiled: _Compiled) -> None:
        """Begins to make the chain again, once for each time that it falls."""
        if self._compiled is compiled:
            self._compiled = None
            self._restart = asyncio.create_task(self._make_again(compiled))

    async def _watch_over(self, compiled: _Compiled) -> None:
        """Ends what Ray has left waiting when a process died."""
        await compiled.fallen()
        self._lost(compiled)
        for call in compiled.calls:
            call.cancel()

    async def _make_again(self, fallen: _Compiled) -> None:
        logger.warning("the stages %s lost a process; starting them again", self._name)
        await asyncio.to_thread(fallen.tear_down)
        await self._keep_starting()

    async def _keep_starting(self) -> None:
        while self._compiled is None:
            try:
                await self.start()
            except ReplicaLost as error:
                logger.warning("%s", error)
                await asyncio.sleep(RESTART_PAUSE_S)


def open_chain(name: str, stages: Sequence[Stage], selector: Mapping[str, str] | None = None) -> Chain:
    """A chain that starts by itself, and goes on trying: an `OpenChain`. Its processes are on nodes that
    Ray's label selector takes."""
    chain = Chain(name, stages, selector)
    chain.keep()
    return chain


class _StageActor:
    """One stage, in its own process. No coroutines: Ray's Compiled Graph allows none."""

    def __init__(self, index: int, stage: Stage) -> None:
        self._index = index
        self._compute = stage.make()
        position = {index: place for place, index in enumerate(_needed(stage))}
        self._takes = [
            (port, None if source.stage is None else position[source.stage], source.key)
            for port, source in stage.takes.items()
        ]

    def ready(self) -> bool:
        return True

    def run(self, given: Values, *made: Made) -> Made:
        began = perf_counter()
        values = {
            port: (given if place is None else made[place].outputs)[key] for port, place, key in self._takes
        }
        try:
            return Made(self._compute(values), perf_counter() - began)
        except ClusterError as error:
            raise StageFailed(self._index, error) from error


class _Compiled:
    """A compiled graph and the actors that are its own."""

    def __init__(self, actors: Sequence[Any], stages: Sequence[Stage]) -> None:
        self._actors = actors
        made: list[Any] = []
        with InputNode() as given:
            for actor, stage in zip(actors, stages, strict=True):
                made.append(actor.run.bind(given, *(made[index] for index in _needed(stage))))
        self._graph: Any = MultiOutputNode(made).experimental_compile(enable_asyncio=True)
        self.calls: set[asyncio.Task[Any]] = set()
        """That are in it."""

    async def call(self, given: Values) -> list[Made]:
        """In a task of its own."""
        task = asyncio.current_task()
        assert task is not None
        self.calls.add(task)
        try:
            return list(await asyncio.gather(*await self._graph.execute_async(given)))
        finally:
            self.calls.discard(task)

    async def fallen(self) -> None:
        """Returns `LAST_WORDS_S` after one of its processes has died."""
        works = [asyncio.wrap_future(ref.future()) for ref in self._graph.worker_task_refs.values()]
        with suppress(RayError):
            await asyncio.gather(*works)
        await asyncio.sleep(LAST_WORDS_S)

    def tear_down(self) -> None:
        """Blocking."""
        self._graph.teardown()
        for actor in self._actors:
            ray.kill(actor)


def _warm(stages: Sequence[Stage], selector: dict[str, str]) -> list[Any]:
    """Their actors, each with its stage made. Blocking. Raises `RayError`."""
    kind = ray.remote(_StageActor)
    actors: list[Any] = [
        kind.options(num_cpus=stage.num_cpus, label_selector=selector).remote(index, stage)
        for index, stage in enumerate(stages)
    ]
    try:
        ray.get([actor.ready.remote() for actor in actors], timeout=START_TIMEOUT_S)
    except RayError:
        for actor in actors:
            ray.kill(actor)
        raise
    return actors


def _needed(stage: Stage) -> list[int]:
    """The earlier stages that it takes from."""
    return sorted({source.stage for source in stage.takes.values() if source.stage is not None})


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
