"""Runners come, go, sleep and lose replies, in any order: what was acknowledged is there, once, in order."""

from __future__ import annotations

import random

import pytest

from runtime.durability.memory import MemoryJournals
from runtime.durability.stored import StoredJournals
from runtime.errors import LeaseLost, RunHeld
from runtime.events import NodeStarted, RunResumed
from runtime.store.client import Store
from tests.runtime.durability.journals import FINISHED, LEASE_S, Clock, begun, checkpoint, followed
from tests.runtime.durability.test_stored import Flaky

ROUNDS = 120


async def interleave(journals, clock: Clock, chance: random.Random, flaky: Flaky | None) -> None:
    """`journals` of each runner. Every event has another name, so that the order can be checked."""
    holders = [await begun(journals[0])]
    acknowledged, refused = [], set()
    newest = 1
    for number in range(ROUNDS):
        if flaky is not None:
            flaky.lose_replies = chance.choice([0, 0, 0, 1])
        match chance.choice(["write", "write", "write", "sleep", "take", "renew"]):
            case "write":
                journal = chance.choice(holders[-3:])
                event, done = NodeStarted(f"n{number}", "x"), checkpoint(f"n{number}")
                try:
                    await journal.append([event], [done])
                except LeaseLost:
                    assert journal.lease.token < newest
                    refused.add(event.node)
                else:
                    assert journal.lease.token == newest
                    acknowledged.append(event)
            case "sleep":
                clock.pass_by(chance.choice([1.0, LEASE_S]))
            case "take":
                try:
                    taken = (await chance.choice(journals).take("acme", "run-1")).journal
                except RunHeld:
                    continue
                newest += 1
                assert taken.lease.token == newest
                assert set(taken.done) == {
                    each.node for each in acknowledged if isinstance(each, NodeStarted)
                }
                holders.append(taken)
                acknowledged.append(RunResumed("run-1", newest, len(taken.done)))
                await taken.append([acknowledged[-1]], [])
            case "renew":
                leases = [holder.lease for holder in holders]
                if flaky is not None:
                    flaky.lose_replies = 0
                assert await chance.choice(journals).renew(leases) == leases[:-1]
    clock.pass_by(LEASE_S)
    last = (await journals[0].take("acme", "run-1")).journal
    await last.append([FINISHED], [])
    heard = await followed(journals[0])
    assert [each.event for each in heard][1:-1] == acknowledged
    assert [each.number for each in heard] == list(range(1, len(heard) + 1))
    assert not refused & set(last.done)


@pytest.mark.parametrize("seed", range(30))
async def test_in_memory(seed: int) -> None:
    clock = Clock()
    await interleave([MemoryJournals(lease_s=LEASE_S, clock=clock)], clock, random.Random(seed), None)


@pytest.mark.parametrize("seed", range(10))
async def test_in_the_store(valkey_store: Store, seed: int) -> None:
    clock, flaky = Clock(), Flaky(valkey_store)
    journals = [StoredJournals(flaky, f"r{index}", lease_s=LEASE_S, clock=clock) for index in range(3)]
    await interleave(journals, clock, random.Random(seed), flaky)
