"""What is kept for a moment and read again in time."""

from __future__ import annotations

import asyncio

import pytest

from runtime.store.errors import StoreUnavailable
from serve_apps.gateway.refreshing import Refreshing


class Source:
    """Answers reads with a number that counts them; `held` makes them wait, `out` makes them fail."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.known: list[int | None] = []
        self.out = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.now = 100.0

    async def read(self, key: str, known: int | None) -> int:
        self.reads.append(key)
        self.known.append(known)
        number = len(self.reads)
        await self.may_answer.wait()
        if self.out:
            raise StoreUnavailable("out")
        return number

    def kept(self, size: int = 10, grace_s: float = 0.0) -> Refreshing[str, int]:
        return Refreshing(self.read, ttl_s=3.0, size=size, grace_s=grace_s, monotonic=lambda: self.now)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_comes_steadily_never_waits() -> None:
    source = Source()
    kept = source.kept()
    assert await kept.get("a") == 1
    source.may_answer.clear()
    for _ in range(8):  # 2 s of them: all answered although the store says nothing
        source.now += 0.25
        assert await kept.get("a") == 1
        await turns()
    assert source.reads == ["a", "a"]
    source.may_answer.set()
    await turns()
    assert await kept.get("a") == 2
    assert source.known == [None, 1]


async def test_nothing_is_older_than_its_time() -> None:
    source = Source()
    kept = source.kept()
    assert await kept.get("a") == 1
    source.now += 3.0
    assert await kept.get("a") == 2


async def test_a_value_is_as_old_as_its_read() -> None:
    source = Source()
    kept = source.kept()
    source.may_answer.clear()
    waiting = asyncio.ensure_future(kept.get("a"))
    await turns()
    source.now += 2.9
    source.may_answer.set()
    assert await waiting == 1
    source.now += 0.2
    assert await kept.get("a") == 2


async def test_reads_that_are_wanted_together_are_made_once() -> None:
    source = Source()
    kept = source.kept()
    assert await asyncio.gather(*(kept.get("a") for _ in range(20))) == [1] * 20
    assert source.reads == ["a"]


async def test_what_is_forgotten_during_a_read_is_not_kept() -> None:
    source = Source()
    kept = source.kept()
    source.may_answer.clear()
    reading = asyncio.ensure_future(kept.get("a"))
    await turns()
    kept.forget("a")
    source.may_answer.set()
    assert await reading == 1
    assert len(kept) == 0
    assert await kept.get("a") == 2


async def test_the_least_recently_used_is_dropped() -> None:
    source = Source()
    kept = source.kept(size=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await kept.get(key)
    assert source.reads == ["a", "b", "c", "b"]
    assert len(kept) == 2


async def test_a_store_that_is_out_is_forgiven_for_the_grace_only() -> None:
    source = Source()
    kept, strict = source.kept(grace_s=10.0), source.kept()
    assert (await kept.get("a"), await strict.get("a")) == (1, 2)
    source.out = True
    source.now += 12.9
    assert await kept.get("a") == 1
    with pytest.raises(StoreUnavailable):
        await strict.get("a")
    with pytest.raises(StoreUnavailable):
        await kept.get("unknown")
    source.now += 0.2
    with pytest.raises(StoreUnavailable):
        await kept.get("a")


async def test_a_failed_refresh_costs_nothing_while_the_value_lasts() -> None:
    source = Source()
    kept = source.kept()
    await kept.get("a")
    source.out = True
    source.now += 2.0
    assert await kept.get("a") == 1
    await turns()
    source.out = False
    assert await kept.get("a") == 1
    await turns()
    assert await kept.get("a") == 3


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    source = Source()
    kept = source.kept()
    leaving, staying = (asyncio.ensure_future(kept.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 1
