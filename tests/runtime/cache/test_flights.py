"""Single flight: the work belongs to no single rider, and exactly one of them owes."""

import asyncio

import pytest

from cluster.errors import EngineFailed
from cluster.messages import Usage
from runtime.cache.flights import MUCH_MORE_URGENT, Flights
from runtime.errors import BudgetExceeded


class Rider:
    def __init__(self, priority: int = 0, budget: int = 1000) -> None:
        self.priority = priority
        self.budget = budget
        self.usage = Usage()
        self.calls = 0

    def called(self, model, prompt_tokens):
        if prompt_tokens > self.budget:
            raise BudgetExceeded("too much")
        self.calls += 1
        self.usage = Usage(prompt_tokens)

    def owe(self, usage):
        self.usage = usage


class Work:
    """A model call that takes until it is let go."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun = 0
        self.ended = 0
        self.failure = failure
        self.calling = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, flight):
        self.begun += 1
        flight.called("m", 10)
        self.calling.set()
        usage = Usage(10, 1)
        try:
            await self.go.wait()
            usage = Usage(10, 5)
            if self.failure is not None:
                raise self.failure
        finally:
            self.ended += 1
            flight.owe(usage)
        return {"text": "answer"}


async def boarded(flights, riders, work):
    """Each of them waiting for the same flight, which has called its model."""
    tasks = [asyncio.create_task(flights.ride("key", rider, work)) for rider in riders]
    await work.calling.wait()
    return tasks


def total(riders):
    return sum((rider.usage for rider in riders), Usage())


async def test_equal_work_is_done_once_and_owed_once():
    flights, riders, work = Flights(), [Rider(), Rider(), Rider()], Work()
    tasks = await boarded(flights, riders, work)
    work.go.set()
    landed = await asyncio.gather(*tasks)
    assert [outputs for outputs, _ in landed] == [{"text": "answer"}] * 3
    assert [flight.owner is rider for (_, flight), rider in zip(landed, riders, strict=True)] == [
        True,
        False,
        False,
    ]
    assert (work.begun, total(riders), landed[0][1].tokens) == (1, Usage(10, 5), 15)
    assert [rider.calls for rider in riders] == [1, 0, 0]
    assert len(flights) == 0


async def test_who_comes_after_it_has_landed_begins_another():
    flights, work = Flights(), Work()
    work.go.set()
    await flights.ride("key", Rider(), work)
    await flights.ride("key", Rider(), work)
    assert work.begun == 2


async def test_other_work_is_a_flight_of_its_own():
    flights, work = Flights(), Work()
    work.go.set()
    await asyncio.gather(flights.ride("a", Rider(), work), flights.ride("b", Rider(), work))
    assert work.begun == 2


async def test_whoever_began_it_may_leave():
    flights, riders, work = Flights(), [Rider(), Rider(), Rider()], Work()
    tasks = await boarded(flights, riders, work)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert riders[0].usage == Usage()
    assert riders[1].usage == Usage(10)  # it owes the call now
    work.go.set()
    assert (await tasks[1])[0] == {"text": "answer"}
    assert (await tasks[2])[0] == {"text": "answer"}
    assert [rider.usage for rider in riders] == [Usage(), Usage(10, 5), Usage()]
    assert work.begun == 1


async def test_the_last_to_leave_ends_it_and_owes_what_it_came_to():
    flights, riders, work = Flights(), [Rider(), Rider()], Work()
    tasks = await boarded(flights, riders, work)
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])
    assert work.ended == 1
    assert [rider.usage for rider in riders] == [Usage(), Usage(10, 1)]
    assert len(flights) == 0


async def test_nobody_gets_on_a_flight_that_ends():
    flights, work, second = Flights(), Work(), Work()
    tasks = await boarded(flights, [Rider()], work)
    tasks[0].cancel()
    while len(flights):
        await asyncio.sleep(0)  # it leaves, and waits for the end
    second.go.set()
    assert (await flights.ride("key", Rider(), second))[0] == {"text": "answer"}
    assert second.begun == 1


async def test_all_on_board_get_an_error_of_their_own():
    flights, riders, work = Flights(), [Rider(), Rider()], Work(EngineFailed("broke"))
    tasks = await boarded(flights, riders, work)
    work.go.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(each), str(each)) for each in failures] == [(EngineFailed, "broke")] * 2
    assert failures[0] is not failures[1]
    assert total(riders) == Usage(10, 5)


async def test_a_budget_that_is_too_small_is_that_riders_own_trouble():
    flights, poor, rich, work = Flights(), Rider(budget=5), Rider(), Work()
    tasks = await boarded(flights, [poor, rich], work)
    with pytest.raises(BudgetExceeded):
        await tasks[0]
    work.go.set()
    assert (await tasks[1])[0] == {"text": "answer"}
    assert (poor.usage, rich.usage) == (Usage(), Usage(10, 5))


async def test_work_that_nobody_can_afford_ends():
    flights = Flights()
    with pytest.raises(BudgetExceeded):
        await flights.ride("key", Rider(budget=5), Work())
    assert len(flights) == 0


async def test_who_leaves_last_of_those_that_can_owe_pays():
    flights, rich, poor, work = Flights(), Rider(), Rider(budget=5), Work()
    tasks = await boarded(flights, [rich, poor], work)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert isinstance(tasks[1].exception(), BudgetExceeded)
    assert (rich.usage, poor.usage, work.ended) == (Usage(10, 1), Usage(), 1)


async def test_the_urgent_do_not_wait_for_what_stands_far_behind():
    flights, slow, urgent = Flights(), Work(), Work()
    tasks = await boarded(flights, [Rider(priority=MUCH_MORE_URGENT)], slow)
    urgent.go.set()
    await flights.ride("key", Rider(priority=0), urgent)
    assert urgent.begun == 1
    slow.go.set()
    assert (await tasks[0])[0] == {"text": "answer"}
    assert len(flights) == 0
