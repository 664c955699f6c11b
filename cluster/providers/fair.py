"""A remote endpoint whose calls go out in a fair order, as many at a time as there are connections to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from cluster.admission.queue import Capacity
from cluster.engines.gate import Gate
from cluster.interface import Batch, Pool
from cluster.messages import Embed, Embeddings, Generate


class FairPool:
    """Implements `cluster.interface.Pool` over another. Only the calls of this process meet here."""

    def __init__(self, pool: Pool, connections: int, weights: Mapping[str, float]) -> None:
        """`weights` are those of tenants, by name."""
        self.info = pool.info
        self._pool = pool
        self._gate = Gate(Capacity(sequences=connections))
        self._gate.weights = weights

    def count_tokens(self, call: Generate | Embed) -> int:
        return self._pool.count_tokens(call)

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        return self._gate.through(call, self._pool.generate)

    async def embed(self, call: Embed) -> Embeddings:
        return await self._gate.embedded(call, self._pool.embed)

    async def ready(self) -> bool:
        return await self._pool.ready()
