"""A pool of one engine in the caller's own process: notebooks, tests, and small embedded use."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from cluster.engines import deadline
from cluster.interface import Batch, Engine, ModelInfo
from cluster.messages import Embed, Embeddings, EngineStatus, Generate
from cluster.tokens import TokenCounter


class LocalPool:
    """Implements `cluster.interface.Pool` over an engine in this process."""

    def __init__(self, info: ModelInfo, engine: Engine, counter: TokenCounter) -> None:
        self.info = info
        self.engine = engine
        self._counter = counter

    def count_tokens(self, call: Generate | Embed) -> int:
        return self._counter.count(call)

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        return deadline.generate(self.engine, call)

    async def embed(self, call: Embed) -> Embeddings:
        return await deadline.embed(self.engine, call)

    async def statuses(self) -> list[EngineStatus]:
        return [await self.engine.status()]

    async def ready(self) -> bool:
        return True
