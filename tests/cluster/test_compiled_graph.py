"""Real Ray, real processes: what a chain of stages gives, what it holds, and what happens when one dies."""

import asyncio
import os
import time
from contextlib import suppress
from functools import partial

import pytest
from ray.exceptions import RayError

from cluster import compiled_graph
from cluster.compiled_graph import MAX_IN_CHAIN, Chain, open_chain
from cluster.errors import EngineFailed, InvalidCall, ReplicaLost
from cluster.stages import Source, Stage, StageFailed
from tests.local_ray import local_ray


def make_add(amount):
    def add(values):
        return {"value": sum(values.values()) + amount, "pid": os.getpid()}

    return add


def make_fragile():
    def fragile(values):
        match values["value"]:
            case "caller":
                raise InvalidCall("not that", param="value")
            case "other":
                raise ZeroDivisionError
            case "die":
                os._exit(1)
        return values

    return fragile


def make_slow(seconds):
    def slow(values):
        time.sleep(seconds)
        return values

    return slow


def stage(make, num_cpus=0.0, **takes):
    return Stage(make, {port: Source(*source) for port, source in takes.items()}, num_cpus)


@pytest.fixture(scope="module")
def cluster():
    with local_ray():
        yield


async def opened(*stages):
    chain = Chain("test", stages)
    await chain.start()
    return chain


async def test_a_chain_with_a_fan_in_runs_in_processes_of_its_own(cluster):
    chain = await opened(
        stage(partial(make_add, 1), a=(None, "x")),
        stage(partial(make_add, 10), a=(0, "value")),
        stage(partial(make_add, 100), a=(0, "value"), b=(1, "value")),
    )
    try:
        made = await chain.run({"x": 5})
        assert [each.outputs["value"] for each in made] == [6, 16, 122]
        assert len({each.outputs["pid"] for each in made} | {os.getpid()}) == 4
        assert all(each.seconds >= 0 for each in made)
    finally:
        await chain.close()


async def test_more_calls_than_fit_wait_for_room(cluster):
    chain = await opened(stage(partial(make_add, 1), a=(None, "x")))
    try:
        made = await asyncio.gather(*(chain.run({"x": x}) for x in range(5 * MAX_IN_CHAIN)))
        assert [each[0].outputs["value"] for each in made] == [x + 1 for x in range(5 * MAX_IN_CHAIN)]
    finally:
        await chain.close()


async def test_what_a_stage_raises_is_raised_and_harms_no_other_call(cluster):
    chain = await opened(stage(make_fragile, value=(None, "x")), stage(make_fragile, value=(0, "value")))
    try:
        with pytest.raises(StageFailed) as refused:
            await chain.run({"x": "caller"})
        assert refused.value.stage == 0
        assert isinstance(refused.value.error, InvalidCall)
        assert (refused.value.error.message, refused.value.error.param) == ("not that", "value")
        with pytest.raises(EngineFailed, match="ZeroDivisionError"):
            await chain.run({"x": "other"})
        assert (await chain.run({"x": "fine"}))[1].outputs == {"value": "fine"}
    finally:
        await chain.close()


async def test_a_call_that_is_given_up_leaves_the_chain_usable(cluster):
    chain = await opened(stage(partial(make_slow, 1.5), value=(None, "x")))
    try:
        call = asyncio.create_task(chain.run({"x": 1}))
        done, _ = await asyncio.wait([call], timeout=0.05)
        assert not done
        call.cancel()
        assert (await chain.run({"x": 2}))[0].outputs == {"value": 2}
    finally:
        await chain.close()


async def test_after_a_death_calls_fail_until_the_chain_is_made_again(cluster):
    chain = await opened(
        stage(make_fragile, value=(None, "x")), stage(partial(make_slow, 0), value=(0, "value"))
    )
    try:
        with pytest.raises(ReplicaLost):
            await chain.run({"x": "die"})
        assert not chain.ready
        with pytest.raises(ReplicaLost, match="being started"):
            await chain.run({"x": 1})
        async with asyncio.timeout(120):
            while not chain.ready:
                await asyncio.sleep(0.05)
        assert (await chain.run({"x": 1}))[1].outputs == {"value": 1}
    finally:
        await chain.close()


async def test_a_call_that_ray_leaves_waiting_fails_when_a_process_dies(cluster, monkeypatch):
    ran = compiled_graph._Compiled.call

    async def never_told(self, given):
        if given["x"] != "die":
            return await ran(self, given)
        self.calls.add(asyncio.current_task())
        with suppress(RayError, TypeError):
            await asyncio.gather(*await self._graph.execute_async(given))
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(compiled_graph._Compiled, "call", never_told)
    chain = await opened(stage(make_fragile, value=(None, "x")))
    try:
        with pytest.raises(ReplicaLost, match="died"):
            await chain.run({"x": "die"})
        async with asyncio.timeout(120):
            while not chain.ready:
                await asyncio.sleep(0.05)
        assert (await chain.run({"x": 1}))[0].outputs == {"value": 1}
    finally:
        await chain.close()


async def test_a_stage_that_cannot_be_made_is_named(cluster):
    chain = Chain("broken", [stage(partial(make_add), a=(None, "x"))])
    with pytest.raises(ReplicaLost, match="the stages broken cannot start"):
        await chain.start()
    assert not chain.ready


async def test_an_opened_chain_starts_by_itself(cluster):
    chain = open_chain("opened", [stage(partial(make_add, 1), a=(None, "x"))])
    try:
        with pytest.raises(ReplicaLost, match="being started"):
            await chain.run({"x": 1})
        async with asyncio.timeout(120):
            while not chain.ready:
                await asyncio.sleep(0.05)
        assert (await chain.run({"x": 1}))[0].outputs["value"] == 2
    finally:
        await chain.close()


async def test_a_large_value_goes_through(cluster):
    chain = await opened(stage(partial(make_slow, 0), value=(None, "x")))
    try:
        text = "x" * 5_000_000
        assert (await chain.run({"x": text}))[0].outputs == {"value": text}
    finally:
        await chain.close()
