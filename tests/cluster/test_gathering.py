"""Batches of plain items, whatever works at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from cluster.admission.batches import Service
from cluster.admission.queue import Ask
from cluster.errors import ClusterError, EngineFailed, InvalidCall, Overloaded
from cluster.gathering import Gatherer, Place
from tests.cluster.engines.test_serving import settle

WHO = ContextVar("WHO", default="nobody")
PATIENCE_S = 60.0


class Doubling:
    """Doubles numbers, a batch when a test says so."""

    def __init__(self, waiting: int = 100) -> None:
        self.batches: list[list[int]] = []
        self.who: list[str] = []
        self.go = asyncio.Event()
        self.service = Service(1, 8, 16)
        self.door: Gatherer[int, int] = Gatherer(self._work, self.service, waiting=waiting)

    async def _work(self, batch: Sequence[Place[int, int]]) -> int | None:
        self.batches.append([place.item for place in batch])
        self.who.append(WHO.get())
        await self.go.wait()
        if batch[0].item == 0:
            return None  # it has forgotten them
        for place in batch:
            place.end(InvalidCall("negative") if place.item < 0 else 2 * place.item)
        return len(batch)

    def begin(self, *numbers: int, tenant: str = "", priority: int = 0) -> asyncio.Task[list[int]]:
        """One call with so many items."""
        deadline = time.time() + PATIENCE_S
        asks = [(number, Ask(deadline, tenant, 1, priority=priority)) for number in numbers]
        return asyncio.create_task(self.door.made(asks, deadline))


async def test_a_call_gets_what_became_of_its_items_in_order() -> None:
    doubling = Doubling()
    tasks = [doubling.begin(1, 2), doubling.begin(3)]
    await settle()
    doubling.go.set()
    assert await asyncio.gather(*tasks) == [[2, 4], [6]]
    assert doubling.batches == [[1, 2, 3]]
    assert (doubling.door.state().waiting, doubling.door.state().admitted) == (0, 3)


async def test_an_item_that_fails_takes_the_rest_of_its_call_along() -> None:
    doubling = Doubling()
    first = doubling.begin(1)
    await settle()
    wrong, right = doubling.begin(-1, *range(2, 40)), doubling.begin(50)
    await settle()
    doubling.go.set()
    with pytest.raises(InvalidCall):
        await wrong
    assert await asyncio.gather(first, right) == [[2], [100]]
    assert sum(map(len, doubling.batches)) < 41


async def test_a_call_for_which_there_is_no_room_leaves_nothing_behind() -> None:
    doubling = Doubling(waiting=4)
    inside = doubling.begin(1)
    await settle()
    with pytest.raises(Overloaded):
        await doubling.begin(*range(2, 10))
    assert doubling.door.state().waiting == 0
    doubling.go.set()
    assert await inside == [2]


async def test_urgent_items_of_a_tenant_go_first() -> None:
    doubling = Doubling()
    tasks = [doubling.begin(1)]
    await settle()
    doubling.service.learn(2, 100.0)  # batches of one
    tasks += [doubling.begin(2, priority=10_000), doubling.begin(3), doubling.begin(4, priority=-10_000)]
    await settle()
    doubling.go.set()
    await asyncio.gather(*tasks)
    assert [number for batch in doubling.batches for number in batch] == [1, 4, 3, 2]


async def test_items_that_the_work_forgets_are_not_waited_for() -> None:
    doubling = Doubling()
    doubling.go.set()
    with pytest.raises(EngineFailed, match="given up"):
        await doubling.begin(0)
    assert await doubling.begin(1) == [2]


async def test_the_work_knows_nothing_of_who_began_it() -> None:
    doubling = Doubling()
    doubling.go.set()
    WHO.set("somebody")
    await doubling.begin(1)
    assert doubling.who == ["nobody"]


async def test_whether_somebody_still_waits() -> None:
    place: Place[int, int] = Place(1)
    assert place.end(2)
    assert not place.end(ClusterError("late"))
    assert await place.made == 2
