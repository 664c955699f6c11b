"""The one engine that all arms call, and what each of them has asked of it.

    arm ─► Metered (same decoding for all, counts by tenant) ─► pool ─► engine

Every run of every arm calls under a tenant of its own. The tenant is the salt of the engine's prefix cache:
no run finds what another has left there, though all send the same prompts and so must get the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import perf_counter

from msgspec.structs import replace
from ray import serve

from cluster.config import VllmSpec
from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import Batch, ModelInfo, Pool
from cluster.messages import Generate, Sampling, Usage
from cluster.models import prepare
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.pools.local import LocalPool

MODEL = "smollm2"
SLOTS = 16
"""Sequences that the engine decodes at a time: from there on two cores give no more tokens a second."""
DECODING = Sampling(temperature=0, ignore_eos=True)
DATA = Path(__file__).parents[2] / ".data"


class Account:
    """What one tenant has asked of the engine."""

    def __init__(self) -> None:
        self.calls = 0
        self.running = 0
        self.usage = Usage()
        self.first_token_at = 0.0
        """Of the latest call, on the clock of `perf_counter`."""
        self.begun = asyncio.Condition()
        """Is told of every call that begins."""

    @property
    def prefilled(self) -> int:
        """Prompt tokens that were computed, and not found in the prefix cache."""
        return self.usage.prompt_tokens - self.usage.cached_tokens

    async def has_begun(self, calls: int) -> None:
        """Waits until so many calls were made."""
        async with self.begun:
            await self.begun.wait_for(lambda: self.calls >= calls)


class Metered:
    """Implements `cluster.interface.Pool` over another."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.info = pool.info
        self.count_tokens = pool.count_tokens
        self.embed = pool.embed
        self.ready = pool.ready
        self._accounts: dict[str, Account] = {}

    def account(self, tenant: str) -> Account:
        return self._accounts.setdefault(tenant, Account())

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        account = self.account(call.tenant)
        async with account.begun:
            account.calls += 1
            account.begun.notify_all()
        account.running += 1
        first = True
        try:
            async with aclosing(self._pool.generate(replace(call, sampling=DECODING))) as batches:
                async for batch in batches:
                    if first:
                        account.first_token_at, first = perf_counter(), False
                    if isinstance(batch[-1], Usage):
                        account.usage += batch[-1]
                    yield batch
        finally:
            account.running -= 1


@asynccontextmanager
async def real_engine() -> AsyncIterator[Metered]:
    """The bundled SmolLM2 on vLLM behind a Serve handle. Wants `serve_host.environment` around it."""
    await asyncio.to_thread(prepare, "bundled/smollm2", DATA)
    spec = VllmSpec(name=MODEL, engine="vllm", source="bundled/smollm2", max_num_seqs=SLOTS)
    handle = await asyncio.to_thread(serve.run, bind(spec, DATA), route_prefix=None)
    yield Metered(HandlePool(model_info(spec), handle, token_counter(spec, DATA)))


@asynccontextmanager
async def fake_engine(script: FakeScript) -> AsyncIterator[Metered]:
    """The scripted engine in this process. It has no batches and no prefix cache: it shows that the arms
    agree, and what the graph alone is worth."""
    info = ModelInfo(MODEL, "generate", 4096, 64)
    yield Metered(LocalPool(info, FakeEngine(script), FakeTokenCounter()))
