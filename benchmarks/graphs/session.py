"""What the arms of all cases share: the engine, runners of our pipelines, plain calls, and the peer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.cases import Measured
from benchmarks.graphs.engine import DECODING, MODEL, Metered
from benchmarks.graphs.peer import Peer
from benchmarks.graphs.texts import messages
from benchmarks.runner import MeasurementFailed
from cluster.messages import Delta, Generate
from graphs.loader import load_file
from graphs.pipeline import Pipeline
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeDelta, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest
from runtime.runner import Runner

FOLDER = Path(__file__).parent
PATIENCE_S = 600.0
"""The deadline of a run, which none should come near."""


class Ended(NamedTuple):
    """What a run of ours came to."""

    outputs: dict[str, Any]
    first_text_at: float
    """On the clock of `perf_counter`; 0 where nothing was streamed."""


class Session(NamedTuple):
    """One measurement of all cases."""

    pool: Metered
    peer: Peer | None
    """None where LangGraph is not installed."""
    folder: Path
    """For files that are gone afterwards. Short: Unix sockets live in it."""
    store_url: str
    """Of a store of its own."""
    fake: bool = False
    unit_s: float = 1.0
    """What a second of a tool takes: less with a fake engine, which is quicker too."""

    @property
    def door(self) -> Path:
        """The way to the engine for other processes."""
        return self.folder / "door"

    def runner(self, *graphs: str) -> Runner:
        """Of the pipelines of these names."""
        return Runner([self.plan(name) for name in graphs], Resources({MODEL: self.pool}))

    def plan(self, name: str) -> ExecutionPlan:
        return compile_pipeline(pipeline_of(name), Catalog({MODEL: self.pool.info}, {}))

    async def ask(
        self,
        tenant: str,
        prompt: str,
        max_tokens: int,
        system: str | None = None,
        *,
        priority: int = 0,
        stream: bool = False,
    ) -> str:
        """The answer to one plain call: what the arms without a runtime are written with."""
        call = Generate(
            request_id=f"{tenant}-{time.time_ns()}-{id(prompt)}",
            model=MODEL,
            max_tokens=max_tokens,
            deadline=time.time() + PATIENCE_S,
            messages=messages(prompt, system),
            sampling=DECODING,
            stream=stream,
            tenant=tenant,
            priority=priority,
        )
        async with aclosing(self.pool.generate(call)) as batches:
            events = [event async for batch in batches for event in batch]
        return "".join(event.text for event in events if isinstance(event, Delta))

    def measured(self, tenant: str, began: float, outputs: Any, first_text_at: float = 0.0) -> Measured:
        """The figures of an arm that has just ended, `began` on the clock of `perf_counter`."""
        account = self.pool.account(tenant)
        figures = {
            "latency_s": perf_counter() - began,
            "calls": float(account.calls),
            "prompt_tokens": float(account.usage.prompt_tokens),
            "prefilled_tokens": float(account.prefilled),
            "output_tokens": float(account.usage.completion_tokens),
        }
        if first_text_at:
            figures["first_text_s"] = first_text_at - began
        return Measured(figures, outputs)


def pipeline_of(name: str) -> Pipeline:
    """As its author wrote it."""
    return load_file(FOLDER / f"{name}.yaml").pipeline


def system_of(name: str, *path: str) -> str:
    """The system message of a model call, by its name and those of the nodes around it, outermost first."""
    nodes: Mapping[Any, Any] = pipeline_of(name).nodes
    for around in path[:-1]:
        (body,) = nodes[around].bodies.values()
        nodes = body.nodes
    return str(nodes[path[-1]].spec.system)


async def ended(
    runner: Runner, graph: str, inputs: Mapping[str, Any], tenant: str, run: str = "run", **fields: Any
) -> Ended:
    """Runs one of our pipelines to its end. Raises `MeasurementFailed` where it fails."""
    request = RunRequest(
        run_id=f"{tenant}-{run}",
        graph=graph,
        inputs=dict(inputs),
        deadline=time.time() + PATIENCE_S,
        tenant=tenant,
        **fields,
    )
    first_text_at = 0.0
    last: Any = None
    async with aclosing(runner.run(request)) as events:
        async for last in events:
            if isinstance(last, NodeDelta) and not first_text_at:
                first_text_at = perf_counter()
    if not isinstance(last, RunFinished):
        raise MeasurementFailed(f"{graph} did not finish: {last!r:.500}")
    return Ended(last.outputs, first_text_at)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The least of the values that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
