"""Three replicas in Ray Serve: sessions stick, beginnings meet, load spreads, a dead one is gone round."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import ray
from ray import serve
from ray.serve._private.request_router.request_router import RequestRouter
from ray.util import list_named_actors

from cluster.config import FakeSpec
from cluster.messages import Generate, Message, Usage
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.routing.facts import Booking, CallFacts, ReplicaName
from cluster.routing.policy import TokenRouting
from tests.cluster.calls import events_of
from tests.local_ray import local_serve

pytestmark = pytest.mark.ray
SPEC = FakeSpec(name="m", engine="fake", replicas=3, script={"first_token_s": 0.05, "token_s": 0.005})


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HandlePool]:
    # Serve goes round a replica that is slow to tell its queue, as any is on a busy machine.
    monkeypatch.setattr(RequestRouter, "queue_len_response_deadline_s", 60.0)
    async with local_serve():
        application = bind(SPEC, Path(), drain_s=1)
        handle = await asyncio.to_thread(serve.run, application, route_prefix=None)
        yield HandlePool(model_info(SPEC), handle, token_counter(SPEC, Path()))


async def say(pool: HandlePool, text: str, session: str = "", *, stream: bool = False) -> None:
    messages = [Message("user", text)]
    deadline = time.time() + 60
    call = Generate("id", "m", 8, deadline, messages=messages, tenant="t", session=session, stream=stream)
    assert isinstance((await events_of(pool.generate(call)))[-1], Usage)


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The replicas that calls were sent to, one after the other."""
    names: list[str] = []
    sent = TokenRouting.sent

    def noted(self: TokenRouting, call: CallFacts, replica: ReplicaName) -> Booking:
        names.append(replica)
        return sent(self, call, replica)

    monkeypatch.setattr(TokenRouting, "sent", noted)
    return names


async def test_three_replicas(pool: HandlePool, went: list[str]) -> None:
    """One start of Ray for all of it."""
    await _sessions_stick(pool, went)
    await _beginnings_meet(pool, went)
    await _load_spreads(pool, went)
    await _a_dead_replica_is_gone_round(pool, went)


async def _sessions_stick(pool: HandlePool, went: list[str]) -> None:
    for session in range(4):
        for turn in range(4):
            await say(pool, f"of session {session} " * 50 * (turn + 1), f"s{session}")
    for session in range(4):
        assert len(set(went[4 * session : 4 * session + 4])) == 1


async def _beginnings_meet(pool: HandlePool, went: list[str]) -> None:
    went.clear()
    for number in range(4):
        rules = f"rule {number} says " * 200
        await asyncio.gather(*(say(pool, f"{rules} item {item}", stream=True) for item in range(3)))
    for number in range(4):
        assert len(set(went[3 * number : 3 * number + 3])) == 1


async def _load_spreads(pool: HandlePool, went: list[str]) -> None:
    went.clear()
    await asyncio.gather(*(say(pool, f"{number} of many " * 20) for number in range(90)))
    counts = Counter(went)
    assert len(counts) == 3
    assert max(counts.values()) <= 45


async def _a_dead_replica_is_gone_round(pool: HandlePool, went: list[str]) -> None:
    went.clear()
    calls = [asyncio.ensure_future(say(pool, f"{number} of some " * 20)) for number in range(30)]
    while len(set(went)) < 3:
        await asyncio.sleep(0.01)
    dead = went[0]
    [actor] = [each for each in list_named_actors(all_namespaces=True) if each["name"].endswith(dead)]
    ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))
    await asyncio.gather(*calls)
    went.clear()
    for number in range(10):
        await say(pool, f"and {number} more")
    assert dead not in went
