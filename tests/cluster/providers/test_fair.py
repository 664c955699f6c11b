from __future__ import annotations

import asyncio
import time

import pytest

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.errors import DeadlineExceeded, Overloaded
from cluster.interface import ModelInfo
from cluster.messages import Embed, Embeddings
from cluster.pools.local import LocalPool
from cluster.providers.fair import FairPool
from tests.cluster.calls import chat, embed, events_of
from tests.cluster.engines.test_serving import settle


def fair(engine: FakeEngine, connections: int = 1, **weights: float) -> FairPool:
    return FairPool(
        LocalPool(ModelInfo("m", "generate", 512, 16), engine, FakeTokenCounter()), connections, weights
    )


async def order_of(pool: FairPool, **calls: int) -> list[str]:
    """Tenants in the order in which so many calls of each end, which all come at once."""
    order: list[str] = []

    async def asked(tenant: str, number: int) -> None:
        call = chat("a b c", request_id=f"{tenant}{number}", tenant=tenant)
        await events_of(pool.generate(call))
        order.append(tenant)

    await asyncio.gather(*(asked(tenant, n) for tenant, many in calls.items() for n in range(many)))
    return order


async def test_who_sends_much_does_not_delay_who_sends_little() -> None:
    order = await order_of(fair(FakeEngine(FakeScript(first_token_s=0.001))), flood=40, light=3)
    assert max(index for index, tenant in enumerate(order) if tenant == "light") < 10


async def test_tenants_are_served_by_weight() -> None:
    order = await order_of(fair(FakeEngine(FakeScript(first_token_s=0.001)), heavy=3.0), light=20, heavy=20)
    assert 2 <= order[:16].count("heavy") / order[:16].count("light") <= 4


async def test_no_more_calls_are_out_than_there_are_connections() -> None:
    engine = FakeEngine(FakeScript(first_token_s=0.001))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, (await engine.status()).running)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    assert len(await order_of(fair(engine, 2), a=9)) == 9
    watching.cancel()
    assert most == 2


class Narrow:
    """A pool of embeddings that says how many calls are out, and in which order they went."""

    def __init__(self) -> None:
        self._pool = LocalPool(ModelInfo("m", "embed", 512, 1), FakeEngine(), FakeTokenCounter())
        self.info, self.ready = self._pool.info, self._pool.ready
        self.count_tokens, self.generate = self._pool.count_tokens, self._pool.generate
        self.order: list[str] = []
        self.out = self.most = 0
        self.go = asyncio.Event()

    async def embed(self, call: Embed) -> Embeddings:
        self.order.append(call.tenant)
        self.out += 1
        self.most = max(self.most, self.out)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
            return await self._pool.embed(call)
        finally:
            self.out -= 1


async def test_embeddings_go_out_fairly_and_no_more_than_there_are_connections() -> None:
    narrow = Narrow()
    pool = FairPool(narrow, 2, {})
    calls = [embed("a b c", tenant="flood") for _ in range(40)] + [embed("a b c", tenant="light")] * 3
    tasks = [asyncio.create_task(pool.embed(call)) for call in calls]
    await settle()
    assert (narrow.out, len(narrow.order)) == (2, 2)
    narrow.go.set()
    assert [len(made.vectors) for made in await asyncio.gather(*tasks)] == [1] * 43
    assert narrow.most == 2
    assert max(index for index, tenant in enumerate(narrow.order) if tenant == "light") < 10


async def test_an_embedding_waits_no_longer_than_it_may_and_leaves_its_place() -> None:
    narrow = Narrow()
    pool = FairPool(narrow, 1, {})
    inside = asyncio.create_task(pool.embed(embed("a")))
    await settle()
    with pytest.raises(DeadlineExceeded):
        await pool.embed(embed("b", deadline=time.time() + 0.05))
    gone = asyncio.create_task(pool.embed(embed("c")))
    await settle()
    gone.cancel()
    inside.cancel()
    await asyncio.wait([gone, inside])
    narrow.go.set()
    assert (await pool.embed(embed("d"))).vectors
    assert len(narrow.order) == 2


async def test_a_queue_of_embeddings_that_is_full_pushes_back() -> None:
    narrow = Narrow()
    pool = FairPool(narrow, 1, {})
    tasks = [asyncio.create_task(pool.embed(embed("a", tenant="flood"))) for _ in range(1100)]
    await settle()
    refused = [task for task in tasks if task.done()]
    assert refused
    assert all(isinstance(task.exception(), Overloaded) for task in refused)
    narrow.go.set()
    assert (await pool.embed(embed("b", tenant="light"))).vectors
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_else_is_the_pools_own() -> None:
    pool = fair(FakeEngine())
    assert await pool.ready()
    assert pool.count_tokens(embed("a b")) == 2
    assert len((await pool.embed(embed("a"))).vectors) == 1
