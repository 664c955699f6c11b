"""The seam to Serve: replicas ranked one by one, bookings that move, and each call its own replica."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import PendingRequest

from cluster.messages import Generate, Message
from cluster.routing.beside import Beside
from cluster.routing.policy import TokenRouting
from cluster.routing.router import PoolRouter

DEPLOYMENT = DeploymentID("model-m", "app")


class Replica(SimpleNamespace):
    """As much of a `RunningReplica` as routers read."""

    def __init__(self, name: str, **stats: int) -> None:
        super().__init__(replica_id=ReplicaID(name, DEPLOYMENT), routing_stats=stats, max_ongoing_requests=2)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return 0


def router(*replicas: Replica) -> PoolRouter:
    made = PoolRouter(DEPLOYMENT, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)
    made.update_replicas(list(replicas))
    return made


def pending(text: str = "hello", session: str = "", request_id: str = "one") -> PendingRequest:
    call = Generate("id", "m", 40, 0.0, messages=[Message("user", text)], session=session)
    metadata = RequestMetadata(request_id=request_id, internal_request_id=request_id)
    return PendingRequest(args=[b"", Beside(call)], kwargs={}, metadata=metadata)


def names(ranks: list[list[Any]]) -> list[str]:
    return [replica.replica_id.unique_id for [replica] in ranks]


async def chosen(made: PoolRouter, request: PendingRequest) -> list[str]:
    return names(await made.choose_replicas(made._replicas_list, request))


def load(made: PoolRouter) -> dict[str, int]:
    policy = made._policy
    assert isinstance(policy, TokenRouting)
    return {str(name): replica.work.calls for name, replica in policy._replicas.items()}


async def test_ranks_have_one_replica_each_and_the_first_is_booked() -> None:
    made, request = router(Replica("a"), Replica("b"), Replica("c")), pending()
    ranked = await chosen(made, request)
    assert sorted(ranked) == ["a", "b", "c"]
    assert request.routing_context.should_backoff
    assert {name for name, calls in load(made).items() if calls} == {ranked[0]}
    request.args[1].end()
    assert set(load(made).values()) == {0}


async def test_one_that_accepts_in_the_place_of_the_first_is_booked_instead() -> None:
    made, request = router(Replica("a"), Replica("b")), pending()
    first, second = await chosen(made, request)
    made.on_request_routed(request, ReplicaID(first, DEPLOYMENT), None)
    assert load(made) == {first: 1, second: 0}
    made.on_request_routed(request, ReplicaID(second, DEPLOYMENT), None)
    assert load(made) == {first: 0, second: 1}


async def test_choosing_again_books_once() -> None:
    made, request = router(Replica("a"), Replica("b")), pending()
    for _ in range(3):
        await chosen(made, request)
    assert sum(load(made).values()) == 1


async def test_one_replica_needs_no_choice_and_costs_no_look_at_the_prompt() -> None:
    made, request = router(Replica("a")), pending()
    assert await chosen(made, request) == ["a"]
    assert request.args[1].booking is None
    assert request.args[1]._facts is None


async def test_calls_without_facts_go_to_any_two() -> None:
    made = router(*(Replica(name) for name in "abcd"))
    bare = PendingRequest(args=[], kwargs={}, metadata=pending().metadata)
    [two] = await made.choose_replicas(made._replicas_list, bare)
    assert len({replica.replica_id for replica in two}) == 2
    assert len((await made.choose_replicas(made._replicas_list))[0]) == 2


async def test_what_replicas_say_of_themselves_counts() -> None:
    made = router(Replica("a", waiting=900, coming=100), Replica("b"))
    assert (await chosen(made, pending()))[0] == "b"


async def test_calls_of_others_count_and_own_ones_that_have_ended_do_not() -> None:
    made, request, ended = router(Replica("a"), Replica("b")), pending(), pending()
    first, second = await chosen(made, request)
    made.on_new_queue_len_info(ReplicaID(first, DEPLOYMENT), 1)
    made.on_request_routed(request, ReplicaID(first, DEPLOYMENT), None)
    request.args[1].end()
    assert (await chosen(made, ended))[0] in (first, second)
    at = ended.args[1].booking.replica
    other = second if at == first else first
    made.on_new_queue_len_info(ReplicaID(at, DEPLOYMENT), 5)
    made.on_request_routed(ended, ReplicaID(at, DEPLOYMENT), None)
    ended.args[1].end()
    assert {(await chosen(made, pending()))[0] for _ in range(3)} == {other}


async def test_the_same_words_said_again_are_not_news() -> None:
    made = router(Replica("a", waiting=900, coming=0), Replica("b"))
    made._policy.told_calls(made._policy.choose(pending().args[1].facts(), 0.0)[-1], 0, time.monotonic())
    made.update_replicas([Replica("a", waiting=900, coming=0), Replica("b", waiting=100, coming=0)])
    assert (await chosen(made, pending()))[0] == "a"


async def test_one_that_dies_is_used_no_more_and_one_that_cannot_be_reached_last() -> None:
    made = router(Replica("a"), Replica("b"), Replica("c"))
    made.on_replica_actor_unavailable(ReplicaID("a", DEPLOYMENT))
    assert (await chosen(made, pending()))[-1] == "a"
    made.on_replica_actor_died(ReplicaID("a", DEPLOYMENT))
    assert sorted(await chosen(made, pending())) == ["b", "c"]


async def test_a_replica_that_dies_over_a_call_is_avoided() -> None:
    made, request = router(Replica("a"), Replica("b")), pending()
    first, _ = await chosen(made, request)
    request.args[1].lost()
    request.args[1].end()
    assert (await chosen(made, pending()))[-1] == first


async def test_calls_of_one_request_all_get_their_own_replica() -> None:
    made = router(Replica("a"), Replica("b"), Replica("c"))
    requests = [pending(session=f"s{number}") for number in range(6)]  # one internal id
    async with asyncio.timeout(60):
        got = await asyncio.gather(*map(made._choose_replica_for_request, requests))
    assert [replica.replica_id.unique_id for replica in got] == [
        request.args[1].booking.replica for request in requests
    ]
    assert sum(load(made).values()) == 6
