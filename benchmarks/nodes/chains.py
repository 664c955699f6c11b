"""Chains of functions with processes of their own: what a hop costs, and from what work on it is worth it.

    raw       a Ray Compiled Graph, written by hand
    handles   a Serve deployment, called once for each stage
    threads   our pipeline in the runner alone, its functions in threads
    ours      our pipeline as a Ray Compiled Graph, as the compiler chooses for functions with `num_cpus`

With stages that do nothing a hop is all there is; with stages of 2 and 10 ms of Python, several runs at a
time, processes share the cores where threads share one interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import ray
from ray import serve
from ray.dag import InputNode

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.nodes.local import outputs_of
from benchmarks.nodes.stages import spin
from cluster.compiled_graph import Chain
from cluster.stages import Stage
from graphs.builder import Builder
from graphs.functions import spec_of
from graphs.pipeline import Pipeline
from graphs.ports import INTEGER, NUMBER
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner

STAGES = 3
WORK_MS = (0.0, 2.0, 10.0)
TOGETHER = 4
"""Runs at a time, where throughput is measured."""
RUNS = {0.0: 100, 2.0: 24, 10.0: 8}
"""By work of a stage: runs of one sample."""
HOP_MS = 0.4

Run = Callable[[int, float], Awaitable[int]]
"""Given a number and the work of a stage; the number plus the stages."""


class _Bare:
    """A stage by hand. No coroutines: Ray's Compiled Graph allows none."""

    def run(self, given: tuple[int, float]) -> tuple[int, float]:
        return spin(*given), given[1]


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
class Spinning:
    """Any of the stages."""

    async def __call__(self, number: int, work_ms: float) -> int:
        return spin(number, work_ms)


async def cases() -> list[Case]:
    """One for each work of a stage. The processes of all arms stay, and wait while others are measured."""
    opened: list[Chain] = []
    arms: dict[str, tuple[str, Run]] = {
        "raw": ("a Ray Compiled Graph by hand", await _raw()),
        "handles": ("a Serve deployment, called for each stage", await _handles()),
        "threads": ("our pipeline without processes of its own", _ours(None)),
        "ours": ("our pipeline, compiled to a Ray graph", _ours(opened)),
    }
    await asyncio.gather(*(chain.start() for chain in opened))
    return [_case(work_ms, arms) for work_ms in WORK_MS]


def _case(work_ms: float, arms: dict[str, tuple[str, Run]]) -> Case:
    made = [CaseArm(name, describe, _measured(run, work_ms)) for name, (describe, run) in arms.items()]
    if work_ms == 0:
        targets = [Target("hop_ms", "ours", "<=", HOP_MS)]
        return Case(
            "N4 compiled hop", f"a chain of {STAGES} stages that do nothing", made, targets, ("hop_ms",)
        )
    what = f"a chain of {STAGES} stages of {work_ms:g} ms of Python each, {TOGETHER} runs at a time"
    return Case(f"N5 compiled, {work_ms:g} ms", what, made, [], ("together_ms",))


def _measured(run: Run, work_ms: float) -> Callable[[str], Awaitable[Measured]]:
    async def once(number: int) -> float:
        began = perf_counter()
        assert await run(number, work_ms) == number + STAGES
        return perf_counter() - began

    async def measure(_: str) -> Measured:
        runs = RUNS[work_ms]
        for number in range(3):
            await once(number)
        alone = median([await once(number) for number in range(runs)]) * 1e3
        began = perf_counter()
        for start in range(0, runs, TOGETHER):
            await asyncio.gather(*(once(start + place) for place in range(TOGETHER)))
        together = (perf_counter() - began) / runs * 1e3
        return Measured(
            {
                "run_ms": alone,
                "hop_ms": (alone - STAGES * work_ms) / STAGES,
                "together_ms": together,
            },
            STAGES,
        )

    return measure


async def _raw() -> Run:
    kind = ray.remote(_Bare)
    actors: Sequence[Any] = [kind.options(num_cpus=0.1).remote() for _ in range(STAGES)]
    await asyncio.to_thread(ray.get, [actor.run.remote((0, 0.0)) for actor in actors])
    with InputNode() as given:
        last: Any = given
        for actor in actors:
            last = actor.run.bind(last)
    graph = last.experimental_compile(enable_asyncio=True)

    async def run(number: int, work_ms: float) -> int:
        future = await graph.execute_async((number, work_ms))
        return int((await future)[0])

    return run


async def _handles() -> Run:
    handle = await asyncio.to_thread(serve.run, Spinning.bind(), name="spinning", route_prefix=None)  # type: ignore[attr-defined]

    async def run(number: int, work_ms: float) -> int:
        for _ in range(STAGES):
            number = await handle.remote(number, work_ms)
        return number

    return run


def _ours(opened: list[Chain] | None) -> Run:
    def open_chain(name: str, stages: Sequence[Stage]) -> Chain:
        assert opened is not None
        opened.append(Chain(name, stages))
        return opened[-1]

    resources = Resources({}, open_chain=None if opened is None else open_chain)
    runner = Runner([compile_pipeline(chain())], resources)

    async def run(number: int, work_ms: float) -> int:
        return int((await outputs_of(runner, "chain", {"number": number, "work_ms": work_ms}))["number"])

    return run


def chain() -> Pipeline:
    """The stages, one after the other."""
    builder = Builder("chain")
    number: Any = builder.input("number", INTEGER)
    work_ms = builder.input("work_ms", NUMBER)
    for place in range(STAGES):
        spec = spec_of("benchmarks.nodes.stages:stage")
        number = builder.add(f"s{place}", spec, number=number, work_ms=work_ms)
    builder.output("number", number)
    return builder.build()
