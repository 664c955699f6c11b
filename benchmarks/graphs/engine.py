"""The one engine that all arms call, and what each of them has asked of it.

    arm ─► Metered (same decoding for all, counts by tenant) ─► pool ─► engine

Every run of every arm calls under a tenant of its own. The tenant is the salt of the engine's prefix cache:
no run finds what another has left there, though all send the same prompts and so must get the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from time import perf_counter

from msgspec.structs import replace

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import Batch, ModelInfo, Pool
from cluster.messages import EngineStatus, Generate, Sampling, Usage
from cluster.pools.local import LocalPool

MODEL = "smollm2"
DECODING = Sampling(temperature=0, ignore_eos=True)


class Account:
    """What one tenant has asked of the engine."""

    def __init__(self) -> None:
        self.calls = 0
        self.usage = Usage()
        self.first_token_at = 0.0
        """Of the latest call, on the clock of `perf_counter`."""
        self.begun = asyncio.Condition()
        """Is told of every call that begins."""
        self.endless: int | None = None
        """The call, from 1, that never ends: where an engine would be done before anybody disturbs it."""

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

    def __init__(self, pool: Pool, status: Callable[[], Awaitable[EngineStatus]]) -> None:
        self._pool = pool
        self._status = status
        self.info = pool.info
        self.count_tokens = pool.count_tokens
        self.embed = pool.embed
        self.ready = pool.ready
        self._accounts: dict[str, Account] = {}
        self._running = 0

    def account(self, tenant: str) -> Account:
        return self._accounts.setdefault(tenant, Account())

    async def busy(self) -> bool:
        """Whether there is anything to do, for the engine or on the way to it."""
        return self._running > 0 or (await self._status()).running > 0

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        account = self.account(call.tenant)
        async with account.begun:
            account.calls += 1
            number = account.calls
            account.begun.notify_all()
        self._running += 1
        first = True
        try:
            if number == account.endless:
                await asyncio.Event().wait()
            async with aclosing(self._pool.generate(replace(call, sampling=DECODING))) as batches:
                async for batch in batches:
                    if first:
                        account.first_token_at, first = perf_counter(), False
                    if isinstance(batch[-1], Usage):
                        account.usage += batch[-1]
                    yield batch
        finally:
            self._running -= 1


@asynccontextmanager
async def fake_engine(script: FakeScript) -> AsyncIterator[Metered]:
    """The scripted engine in this process. It has no batches and no prefix cache: it shows that the arms
    agree, and what the graph alone is worth."""
    info = ModelInfo(MODEL, "generate", 4096, 64)
    engine = FakeEngine(script)
    yield Metered(LocalPool(info, engine, FakeTokenCounter()), engine.status)
