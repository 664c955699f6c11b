"""Graphs without a cluster, in a notebook, a script or a test: no Ray, no server, no store.

    async with local_runner(ask, [fake("smollm2")]) as local:
        outputs = await local.run("ask", {"question": "Why?"})

Models are fakes in this process (`fake`), or behind an OpenAI-compatible endpoint (`remote`). Durable runs
are journaled in memory, and can be resumed as long as the runner is there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from cluster.config import OpenAISpec
from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.errors import EngineFailed, from_failure
from cluster.interface import ModelInfo, Pool
from cluster.pools.local import LocalPool
from cluster.providers.openai import OpenAIPool
from cluster.tokens import counter_for
from graphs.known import Known
from graphs.loader import load, load_file
from graphs.pipeline import Pipeline
from graphs.versions import by_reference
from runtime.approvals.memory import MemoryApprovals
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import compile_pipeline
from runtime.durability.attending import attend
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import LEASE_S
from runtime.events import RunEvent, RunFailed, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.http_client import HttpClient
from runtime.indexes import Index
from runtime.request import RunRequest
from runtime.runner import Runner

Source = Pipeline | Path | str
"""A pipeline built in Python, a file, or YAML."""

TENANT = "local"
MAX_CONTEXT = 8192
MAX_TOKENS = 256
TIMEOUT_S = 600.0
"""Of a run, unless another is given."""


def fake(
    name: str, script: FakeScript | None = None, task: Literal["generate", "embed"] = "generate"
) -> LocalPool:
    """A model that answers at once and always the same, or as the script says."""
    return LocalPool(ModelInfo(name, task, MAX_CONTEXT, MAX_TOKENS), FakeEngine(script), FakeTokenCounter())


def remote(
    name: str,
    base_url: str,
    *,
    model: str | None = None,
    api_key_env: str | None = None,
    max_context: int = MAX_CONTEXT,
    task: Literal["generate", "embed"] = "generate",
) -> OpenAIPool:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        name: what graphs call it.
        base_url: up to and with the version, such as `https://api.example.com/v1`.
        model: what the endpoint calls it; by default the same.
        api_key_env: environment variable that holds the key.
        max_context: tokens, of prompt and answer together.

    Raises `cluster.errors.ConfigError` where the variable is not set, and `ValueError` for a wrong URL.
    """
    spec = OpenAISpec(
        name=name, engine="openai", base_url=base_url, model=model, api_key_env=api_key_env, task=task
    )
    info = ModelInfo(name, task, max_context, MAX_TOKENS)
    return OpenAIPool(spec, info, counter_for(None), os.environ)


class LocalRunner:
    """Runs graphs in this process. Made by `local_runner`."""

    def __init__(self, runner: Runner, journals: MemoryJournals, approvals: MemoryApprovals) -> None:
        self.runner = runner
        self.journals = journals
        self.approvals = approvals
        """What `approval` nodes ask."""

    async def run(self, graph: str, inputs: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """The outputs of a run by name. `fields` are others of `RunRequest`.

        Raises the `cluster.errors.ClusterError` in which the run failed.
        """
        async with aclosing(self.events(graph, inputs, **fields)) as events:
            async for event in events:
                if isinstance(event, RunFinished):
                    return event.outputs
                if isinstance(event, RunFailed):
                    raise from_failure(event.failure)
        raise EngineFailed("the run was suspended: what it waits for has to be decided before")

    def events(self, graph: str, inputs: Mapping[str, Any], **fields: Any) -> AsyncGenerator[RunEvent, None]:
        """What the run says of itself while it goes; with `stream=True` also its text, piece by piece."""
        given: dict[str, Any] = {"run_id": uuid4().hex, "deadline": time.time() + TIMEOUT_S, "tenant": TENANT}
        return self.runner.run(RunRequest(graph=graph, inputs=dict(inputs), **(given | fields)))


@asynccontextmanager
async def local_runner(
    sources: Source | Iterable[Source], pools: Iterable[Pool], *, indexes: Iterable[Index] = ()
) -> AsyncIterator[LocalRunner]:
    """A runner of the graphs, for as long as the block lasts.

    Args:
        sources: pipelines; each may run those before it as a `subgraph`.
        pools: the models, by the names that the graphs call them.

    Raises `graphs.errors.PipelineError` with every problem of a pipeline, and `OSError` for a file that is
    not there.
    """
    models, searchable = {pool.info.name: pool for pool in pools}, {index.name: index for index in indexes}
    catalog = Catalog(
        models={name: pool.info for name, pool in models.items()},
        indexes={name: IndexInfo(name, index.model) for name, index in searchable.items()},
    )
    plans = [compile_pipeline(pipeline, catalog) for pipeline in _loaded(sources)]
    http, journals, approvals = HttpClient(), MemoryJournals(), MemoryApprovals()
    resources = Resources(models, searchable, http, approvals=approvals)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(http.close)
        for pool in models.values():
            if isinstance(pool, OpenAIPool):
                stack.push_async_callback(pool.close)
        runner = Runner(plans, resources, journals=journals)
        attending = asyncio.create_task(attend(runner, journals, LEASE_S))
        try:
            yield LocalRunner(runner, journals, approvals)
        finally:
            attending.cancel()
            await asyncio.wait([attending])
            await runner.hand_over()


def run_locally(
    source: Source, pools: Iterable[Pool], inputs: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """The outputs of one run, for callers that do not await. Raises as `local_runner` and its `run` do."""
    (pipeline,) = _loaded(source)

    async def run() -> dict[str, Any]:
        async with local_runner(pipeline, pools) as local:
            return await local.run(pipeline.metadata.name, inputs, **fields)

    # In a thread of its own: a notebook has a loop that runs already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def _loaded(sources: Source | Iterable[Source]) -> list[Pipeline]:
    pipelines: dict[tuple[str, str], Pipeline] = {}
    for source in [sources] if isinstance(sources, Pipeline | Path | str) else sources:
        known = Known(graphs=by_reference(pipelines))
        match source:
            case Pipeline():
                pipeline = source
            case Path():
                pipeline = load_file(source, known).pipeline
            case _:
                pipeline = load(source, known=known).pipeline
        pipelines[pipeline.metadata.name, pipeline.metadata.version] = pipeline
    return list(pipelines.values())
