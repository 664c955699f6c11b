"""Leases are held on to, and what nobody holds is taken up."""

import asyncio

import pytest

from cluster.engines.fake import FakeScript
from runtime.compiler.compile import compile_pipeline
from runtime.durability.attending import attend
from runtime.durability.memory import MemoryJournals
from runtime.events import RunFinished, RunResumed
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from runtime.store.errors import StoreUnavailable
from tests.graphs.shapes import chain
from tests.runtime.parts import pools, request

pytestmark = pytest.mark.leaping


def a_runner(journals: MemoryJournals, first_token_s: float = 0.0) -> Runner:
    models = pools(small=FakeScript(first_token_s=first_token_s))
    return Runner([compile_pipeline(chain())], Resources(models), journals=journals)


async def followed(journals: MemoryJournals, run_id: str = "run-1") -> list:
    return [event async for batch in journals.follow("acme", run_id) for _, event in batch]


def durable(**fields):
    return request(chain(), tenant="acme", durability="step", **fields)


class Clock:
    """Unix seconds, which stand still unless they are moved on."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def outlast_the_first_lease(self, journals: MemoryJournals) -> None:
        """Moves on until another runner has taken the run, and then no more."""
        while (await journals.read("acme", "run-1")).attempt == 1:
            self.now += 61
            await asyncio.sleep(0.01)


async def test_a_run_of_a_runner_that_is_gone_is_taken_up():
    clock = Clock()
    journals = MemoryJournals(lease_s=60, clock=clock)
    dead, alive = a_runner(journals, first_token_s=600), a_runner(journals)
    await dead.start(durable())
    attending = asyncio.create_task(attend(alive, journals, lease_s=60, look_every_s=0.01))
    await clock.outlast_the_first_lease(journals)
    events = await followed(journals)
    attending.cancel()
    assert isinstance(events[-1], RunFinished)
    assert [event for event in events if isinstance(event, RunResumed)] == [RunResumed("run-1", 2, 0)]


async def test_a_runner_that_lost_its_lease_gives_the_run_up():
    journals = MemoryJournals()
    runner = a_runner(journals, first_token_s=600)
    await runner.start(durable())
    (lease,) = runner.leases
    attending = asyncio.create_task(attend(runner, journals, lease_s=0.01, look_every_s=60))
    await asyncio.sleep(0.05)
    assert runner.running == [("acme", "run-1")]
    journals._runs["acme", "run-1"].token += 1
    while runner.running:
        await asyncio.sleep(0.01)
    attending.cancel()
    assert lease.token == 1
    assert journals._runs["acme", "run-1"].state == "running"


class Out(MemoryJournals):
    """Journals in a store that is out at first."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(lease_s=60, clock=clock)
        self.left = 3

    async def abandoned(self):
        self.left -= 1
        if self.left > 0:
            raise StoreUnavailable("out")
        return await super().abandoned()

    async def renew(self, leases):
        raise StoreUnavailable("out")


async def test_a_store_that_is_out_ends_nothing():
    clock = Clock()
    journals = Out(clock)
    dead, alive = a_runner(journals, first_token_s=600), a_runner(journals)
    await dead.start(durable())
    attending = asyncio.create_task(attend(alive, journals, lease_s=0.01, look_every_s=0.01))
    await clock.outlast_the_first_lease(journals)
    events = await followed(journals)
    assert not attending.done()
    attending.cancel()
    assert isinstance(events[-1], RunFinished)
    assert journals.left <= 0
