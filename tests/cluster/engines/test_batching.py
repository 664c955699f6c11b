from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from cluster.engines import batching
from cluster.engines.batching import Batcher
from cluster.engines.fake import FakeEngine
from cluster.engines.sharing import SharedTime
from cluster.errors import ClusterError, DeadlineExceeded, EngineFailed, InvalidCall, Overloaded
from cluster.messages import Embed, Embeddings
from tests.cluster.calls import embed
from tests.cluster.engines.test_serving import settle


class Engine(FakeEngine):
    """Computes a batch when a test says so."""

    def __init__(self, *, held: bool = True) -> None:
        super().__init__()
        self.batches: list[list[Embed]] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
        self.batches.append([*calls])
        await self.go.wait()
        made = await super().embed_many(calls)
        wrong = InvalidCall("no", param="input")
        return [wrong if "wrong" in call.texts else each for call, each in zip(calls, made, strict=True)]


def batcher(engine: FakeEngine, waiting: int = 100) -> Batcher:
    return Batcher(engine, SharedTime(), waiting=waiting)


def asked(door: Batcher, *calls: Embed) -> list[asyncio.Task[Embeddings]]:
    return [asyncio.create_task(door.embed(call)) for call in calls]


async def test_what_comes_while_a_batch_is_computed_is_the_next_batch() -> None:
    engine = Engine()
    door = batcher(engine)
    tasks = asked(door, embed("one"))
    await settle()
    tasks += asked(door, embed("two"), embed("three", "four"), embed("five"))
    await settle()
    assert door.state().waiting == 3
    engine.go.set()
    made = await asyncio.gather(*tasks)
    assert [len(batch) for batch in engine.batches] == [1, 3]
    plain = FakeEngine()
    for each, call in zip(
        made, (embed("one"), embed("two"), embed("three", "four"), embed("five")), strict=True
    ):
        alone = await plain.embed(call)
        assert (each.vectors, each.usage.prompt_tokens) == (alone.vectors, alone.usage.prompt_tokens)


async def test_a_call_that_is_wrong_fails_alone() -> None:
    door = batcher(Engine(held=False))
    right, wrong, also = await asyncio.gather(
        *asked(door, embed("a"), embed("wrong"), embed("b")), return_exceptions=True
    )
    assert isinstance(right, Embeddings)
    assert isinstance(wrong, InvalidCall)
    assert isinstance(also, Embeddings)


async def test_a_surprise_of_the_engine_fails_its_batch_and_nothing_after_it() -> None:
    class Broken(Engine):
        async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
            if not self.batches:
                self.batches.append([*calls])
                raise ZeroDivisionError("a secret")
            return await super().embed_many(calls)

    door = batcher(Broken(held=False))
    with pytest.raises(EngineFailed, match="the engine of m failed: ZeroDivisionError"):
        await door.embed(embed("a"))
    assert (await door.embed(embed("b"))).vectors


async def test_parts_of_the_time_add_up_to_what_the_engine_was_busy() -> None:
    engine, shared = Engine(held=False), SharedTime()
    engine.script = engine.script.__class__(first_token_s=0.02)
    door = Batcher(engine, shared, waiting=10)
    made = await asyncio.gather(*asked(door, *(embed(str(number)) for number in range(4))))
    busy = shared.busy(time.perf_counter_ns())
    assert 0 <= busy - sum(each.usage.engine_ns for each in made) < 10_000_000
    assert door.untold_ns == 0


async def test_a_call_that_leaves_is_not_computed_or_owes_nothing() -> None:
    engine = Engine()
    door = batcher(engine)
    inside, waiting = asked(door, embed("inside"), embed("waiting"))[0], None
    await settle()
    [waiting] = asked(door, embed("gone"))
    await settle()
    for task in (inside, waiting):
        task.cancel()
    await asyncio.gather(inside, waiting, return_exceptions=True)
    assert door.state().waiting == 0
    engine.go.set()
    assert (await door.embed(embed("after"))).vectors
    assert ["gone"] not in [call.texts for batch in engine.batches for call in batch]
    assert door.untold_ns > 0


async def test_a_deadline_ends_a_call_wherever_it_is() -> None:
    engine = Engine()
    door = batcher(engine)
    soon = time.time() + 0.05
    inside, waiting = asked(door, embed("a", deadline=soon), embed("b", deadline=soon))
    results = await asyncio.gather(inside, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineExceeded, DeadlineExceeded]
    engine.go.set()
    assert (await door.embed(embed("after"))).vectors


async def test_a_long_call_is_cut_and_takes_turns_with_short_ones() -> None:
    engine = Engine()
    door = batcher(engine)
    first = asked(door, embed("first", tenant="a"))
    await settle()
    door.service.learn(10, 0.01)
    door.service.learn(1000, 1.0)  # all of the time goes into tokens: nothing is gained by large batches
    texts = [f"text {number} " + "word " * 30 for number in range(5 * batching.PART)]
    long = asked(door, embed(*texts, tenant="long"))
    await settle()
    short = asked(door, embed("short", tenant="short"))
    await settle()
    engine.go.set()
    await asyncio.gather(*first, *short, *long)
    order = [call.tenant for batch in engine.batches for call in batch]
    assert order.index("short") <= 2
    assert order.count("long") == 5
    assert long[0].result() == await _alone(texts, long[0].result())


async def _alone(texts: list[str], made: Embeddings) -> Embeddings:
    alone = await FakeEngine().embed(embed(*texts))
    assert alone.usage.prompt_tokens == made.usage.prompt_tokens
    return Embeddings(alone.vectors, made.usage)


async def test_a_full_queue_refuses_whole_calls() -> None:
    engine = Engine()
    door = batcher(engine, waiting=4)
    inside = asked(door, embed("inside"))
    await settle()
    with pytest.raises(Overloaded) as refused:
        await door.embed(embed(*map(str, range(10 * batching.PART))))
    assert refused.value.retry_after_s
    assert door.state().waiting == 0
    engine.go.set()
    await asyncio.gather(*inside)


async def test_clients_that_ask_again_at_once_stay_together() -> None:
    engine = Engine(held=False)
    door = batcher(engine)
    for tokens in (10, 100):
        door.service.learn(tokens, 30.0)  # tokens take no time: others are worth waiting for

    async def client(number: int) -> None:
        for _ in range(5):
            await door.embed(embed(f"client {number}"))
            await asyncio.sleep(0)

    await asyncio.gather(*map(client, range(8)))
    assert len(engine.batches) <= 8
    assert max(map(len, engine.batches)) == 8
