"""What tenants get of a model over real handles, from several callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from ray import serve

from cluster.config import FakeSpec
from cluster.errors import Overloaded
from cluster.messages import EngineStatus
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool
from tests.cluster.calls import chat, embed, events_of
from tests.local_ray import local_serve

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

BATCH_S = 0.2

CHAT = FakeSpec(
    name="chat",
    engine="fake",
    max_num_seqs=2,
    max_ongoing_requests=102,
    script={"first_token_s": 0.1, "output_tokens": 4},
)
EMBED = FakeSpec(name="embed", engine="fake", task="embed", replicas=2, script={"first_token_s": BATCH_S})
FLOOD = 60
PATIENCE_S = 120.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pools(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, HandlePool]]:
    data = tmp_path_factory.mktemp("data")
    async with local_serve():
        yield {spec.name: await _started(spec, data) for spec in (CHAT, EMBED)}


async def _started(spec: FakeSpec, data: Path) -> HandlePool:
    application = bind(spec, data, weights={"heavy": 3.0})
    handle = await asyncio.to_thread(serve.run, application, name=spec.name, route_prefix=None)
    return HandlePool(model_info(spec), handle, token_counter(spec, data))


async def _statuses(pool: HandlePool, replicas: int) -> list[EngineStatus]:
    """Of all replicas: one that is busy may be too late to be told of."""
    async with asyncio.timeout(PATIENCE_S):
        while len(statuses := await pool.statuses()) < replicas:
            pass
    return statuses


async def test_who_floods_a_model_does_not_delay_others(pools: dict[str, HandlePool]) -> None:
    pool, done = pools["chat"], 0

    async def flood(number: int) -> None:
        nonlocal done
        await events_of(pool.generate(chat("a b c", request_id=f"flood-{number}", tenant="flood")))
        done += 1

    flooding = [asyncio.create_task(flood(number)) for number in range(FLOOD)]
    while not done:
        await asyncio.sleep(0.01)
    for number in range(4):
        light = chat("a b c", request_id=f"light-{number}", tenant="light", stream=True)
        await events_of(pool.generate(light))
    assert done <= FLOOD * 3 // 4  # in the order of arrival all of the flood's would be done
    await asyncio.gather(*flooding)


async def test_a_queue_that_is_full_for_one_has_room_for_another(pools: dict[str, HandlePool]) -> None:
    pool = pools["chat"]
    flooding = [
        asyncio.create_task(events_of(pool.generate(chat(request_id=f"f{number}", tenant="flood"))))
        for number in range(98)
    ]
    refused: list[Overloaded] = []
    while not refused:
        refused = [
            error for task in flooding if task.done() and isinstance(error := task.exception(), Overloaded)
        ]
        await asyncio.sleep(0.01)
    assert refused[0].retry_after_s
    assert await events_of(pool.generate(chat(request_id="light", tenant="light")))
    await asyncio.gather(*flooding, return_exceptions=True)
    [status] = await _statuses(pool, 1)
    assert status.admission is not None
    assert status.admission.refused >= 1
    assert (status.admission.waiting, status.admission.sequences) == (0, 0)


async def test_calls_of_many_clients_are_embedded_together(pools: dict[str, HandlePool]) -> None:
    """Alone, one after the other, the calls would take 64 times as long as one batch."""
    pool = pools["embed"]

    async def client(number: int) -> int:
        call = embed(f"client {number}", tenant=f"t{number % 4}", request_id=f"e{number}")
        return len((await pool.embed(call)).vectors)

    assert await asyncio.gather(*map(client, range(64))) == [1] * 64
    statuses = await _statuses(pool, EMBED.replicas)
    assert sum(status.completed for status in statuses) == 64
    assert sum(status.busy_ns for status in statuses) < 64 * BATCH_S * 1e9


async def test_a_call_that_is_cancelled_while_it_waits_leaves_its_replica(
    pools: dict[str, HandlePool],
) -> None:
    pool = pools["chat"]
    calls = [
        asyncio.create_task(events_of(pool.generate(chat(request_id=f"c{number}", tenant="a"))))
        for number in range(40)
    ]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for task in calls:
        task.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        while (state := (await _statuses(pool, 1))[0].admission) and (state.waiting or state.sequences):
            await asyncio.sleep(0.02)
    assert state is not None
    assert state.admitted < 2 + FLOOD + 4 + 100 + 40
