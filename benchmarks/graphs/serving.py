"""The real engine: the bundled SmolLM2 on vLLM, on all cores of this machine, behind a Serve handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ray import serve

from benchmarks.graphs.engine import MODEL, Metered
from cluster.config import VllmSpec
from cluster.messages import EngineStatus, decode_status
from cluster.models import prepare
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool

SLOTS = 8
"""Sequences that the engine decodes at a time: twice as many give a fifth more tokens a second here."""
DATA = Path(__file__).parents[2] / ".data"


@asynccontextmanager
async def real_engine() -> AsyncIterator[Metered]:
    """Wants Ray to run, with `serve_host.environment` around it."""
    await asyncio.to_thread(prepare, "bundled/smollm2", DATA)
    spec = VllmSpec(name=MODEL, engine="vllm", source="bundled/smollm2", max_num_seqs=SLOTS)
    handle = await asyncio.to_thread(serve.run, bind(spec, DATA), route_prefix=None)
    state = handle.options(method_name="status")

    async def status() -> EngineStatus:
        return decode_status(await state.remote())

    yield Metered(HandlePool(model_info(spec), handle, token_counter(spec, DATA)), status)
