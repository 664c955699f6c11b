"""Nodes that stay in the process: prompts that are rendered on the spot, and functions that are awaited.

raw    a loop that calls what the node calls
ours   a pipeline of so many nodes, the whole run divided by their number
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.passes import compiled
from benchmarks.nodes.stages import waits
from benchmarks.nodes.timing import measured, timed
from benchmarks.runner import MeasurementFailed
from graphs.builder import Builder
from graphs.functions import spec_of
from graphs.nodes.prompt import Prompt
from graphs.pipeline import Pipeline
from graphs.ports import INTEGER, STRING
from graphs.templates import compile_template
from runtime.compiler.compile import compile_pipeline
from runtime.events import RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.executor.kinds.prompt import rendered
from runtime.request import RunRequest
from runtime.runner import Runner

NODES = 200
TIMES = 20
TEMPLATE = "Say it again: {{ text }}"
Arm = Callable[[str], Awaitable[Measured]]


async def outputs_of(runner: Runner, graph: str, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Runs it to its end. Raises `MeasurementFailed` where it fails."""
    request = RunRequest(f"run-{time.time_ns()}", graph, inputs, time.time() + 60, "nodes", **fields)
    async with aclosing(runner.run(request)) as events:
        *_, last = [event async for event in events]
    if not isinstance(last, RunFinished):
        raise MeasurementFailed(f"{graph} did not finish: {last!r:.300}")
    return last.outputs


def cases() -> list[Case]:
    """Three."""
    return [_inline(), _task(), _fused()]


def _inline() -> Case:
    runner = Runner([compile_pipeline(prompts(NODES))], Resources({}))
    template = compile_template(TEMPLATE)
    texts = [f"text {place}" for place in range(NODES)]
    inputs = {f"text{place}": text for place, text in enumerate(texts)}

    async def by_hand(_: int) -> object:
        return [rendered(template, {"text": text}) for text in texts]

    async def run(_: int) -> object:
        outputs = await outputs_of(runner, "prompts", inputs)
        return outputs["said"]

    return Case(
        "N1 inline",
        f"{NODES} prompts rendered on the spot",
        _arms(by_hand, run, NODES),
        [Target("overhead_us", "ours", "<=", 20.0)],
        shown=("node_us",),
    )


def _task() -> Case:
    runner = Runner([compile_pipeline(calls(NODES))], Resources({}))

    async def by_hand(number: int) -> object:
        for _ in range(NODES):
            number = await waits(number)
        return number > 0

    async def run(number: int) -> object:
        return (await outputs_of(runner, "calls", {"number": number}))["number"] > 0

    return Case(
        "N2 task",
        f"a chain of {NODES} functions that are awaited",
        _arms(by_hand, run, NODES),
        [],
        shown=("node_us",),
    )


def _fused() -> Case:
    runners = {
        "ours": Runner([compile_pipeline(prompts(NODES))], Resources({})),
        "unfused": Runner([compiled(prompts(NODES), None, "fuse")], Resources({})),
    }
    inputs = {f"text{place}": f"text {place}" for place in range(NODES)}

    def arm(name: str, describe: str) -> CaseArm:
        async def run(_: int) -> object:
            return (await outputs_of(runners[name], "prompts", inputs))["said"]

        async def measure(_: str) -> Measured:
            return measured(await timed(run, nodes=NODES, times=TIMES))

        return CaseArm(name, describe, measure)

    return Case(
        "N6 fuse",
        f"the pipeline of N1, and what it costs when its {NODES} prompts are steps of their own",
        [arm("ours", "compiled with all passes"), arm("unfused", "compiled without fuse")],
        [],
        shown=("node_us",),
    )


def prompts(nodes: int) -> Pipeline:
    """So many prompts beside each other."""
    builder = Builder("prompts")
    texts = [builder.input(f"text{place}", STRING) for place in range(nodes)]
    said = [builder.add(f"p{place}", Prompt(TEMPLATE), text=text) for place, text in enumerate(texts)]
    builder.output("said", builder.value("all", said))
    return builder.build()


def calls(nodes: int) -> Pipeline:
    """So many awaited functions, one after the other."""
    builder = Builder("calls")
    number: Any = builder.input("number", INTEGER)
    for place in range(nodes):
        number = builder.add(f"f{place}", spec_of("benchmarks.nodes.stages:waits"), number=number)
    builder.output("number", number)
    return builder.build()


def _arms(by_hand: Any, run: Any, nodes: int) -> list[CaseArm]:
    async def raw(_: str) -> Measured:
        return measured(await timed(by_hand, nodes=nodes, times=TIMES))

    async def ours(_: str) -> Measured:
        floor = await timed(by_hand, nodes=nodes, times=TIMES)
        return measured(await timed(run, nodes=nodes, times=TIMES), floor)

    return [CaseArm("raw", "a loop of plain calls", raw), CaseArm("ours", "a pipeline of them", ours)]
