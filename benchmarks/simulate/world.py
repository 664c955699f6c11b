"""The events in their order: calls arrive at gateways, are routed, and replicas end their steps."""

from __future__ import annotations

import gc
import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from time import process_time
from typing import NamedTuple

from benchmarks.simulate.replica import Done, SimulatedReplica, Speeds
from benchmarks.simulate.trace import BLOCK, SimulatedCall
from cluster.routing.facts import Booking, CallFacts, ReplicaFacts, ReplicaName, RoutingPolicy

TOLD_EVERY_S = 5.0
"""Replicas say of themselves what they have to do."""
_ENDS = range(BLOCK, 4_096 * BLOCK, BLOCK)

MakePolicy = Callable[[Random], RoutingPolicy]


class Played(NamedTuple):
    """What came of a trace."""

    done: list[Done]
    decision_s: float
    """CPU of one decision, on average, measured on this machine: the one figure that is not of the seed. The
    garbage collector is not in it: here it would walk through what the simulator has made."""
    service_gap: float
    """Of the replica where it was largest."""


def play(
    calls: Sequence[SimulatedCall],
    make: MakePolicy,
    replicas: int,
    *,
    gateways: int = 1,
    speeds: Speeds | None = None,
    seed: int = 0,
) -> Played:
    """Plays a trace to its end. Each gateway has a policy of its own and gets the calls in turn."""
    pool = [SimulatedReplica(number, speeds or Speeds()) for number in range(replicas)]
    names = [ReplicaName(f"r{number}") for number in range(replicas)]
    policies = [make(Random(seed + number)) for number in range(gateways)]
    for policy in policies:
        policy.replicas(names)
    numbers = {name: number for number, name in enumerate(names)}
    ends: list[tuple[float, int]] = []
    bookings: dict[int, Booking] = {}
    done: list[Done] = []
    told_at, spent = TOLD_EVERY_S, 0.0

    def step(until: float) -> None:
        while ends and ends[0][0] <= until:
            at, number = heapq.heappop(ends)
            replica = pool[number]
            if replica.until != at:
                continue  # cut short by a call that came
            begun, ended = replica.finish()
            for inside in begun:
                bookings[inside.number].answering()
            for inside, what in ended:
                bookings.pop(inside.number).end()
                done.append(what)
            if replica.until != math.inf:
                heapq.heappush(ends, (replica.until, number))

    with _uncollected():
        for index, call in enumerate(calls):
            step(call.at)
            if call.at >= told_at:
                told_at += TOLD_EVERY_S
                _tell(pool, names, policies, call.at)
            policy = policies[index % gateways]
            facts = CallFacts(call.prompt_tokens, call.output_tokens, call.blocks, _ENDS, 1.0, call.session)
            before = process_time()
            name = policy.choose(facts, call.at)[0]
            bookings[index] = booking = policy.sent(facts, name)
            spent += process_time() - before
            replica = pool[numbers[name]]
            replica.offer(call, index, call.at)
            policy.told_calls(name, max(0, replica.calls - booking.calls), call.at)
            heapq.heappush(ends, (replica.until, replica.number))
        step(math.inf)
    return Played(done, spent / max(1, len(calls)), max(replica.service_gap for replica in pool))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: nothing that is made here is in one."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _tell(
    pool: Sequence[SimulatedReplica],
    names: Sequence[ReplicaName],
    policies: Sequence[RoutingPolicy],
    now: float,
) -> None:
    for replica, name in zip(pool, names, strict=True):
        waiting, coming = replica.work()
        facts = ReplicaFacts(waiting, coming, replica.speeds.kv_tokens)
        for policy in policies:
            policy.told(name, facts, now)
