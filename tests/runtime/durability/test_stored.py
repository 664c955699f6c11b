"""Journals in the store beyond what all must do: lost replies, outages, wrong hints, what is sealed."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from runtime.durability import parts
from runtime.durability.places import LEASES, places
from runtime.durability.stored import FOLLOW_PAGE, StoredJournals
from runtime.errors import LeaseLost, RunHeld, UnknownRun
from runtime.events import NodeFinished, NodeStarted, RunResumed
from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from tests.runtime.durability.journals import (
    FAILED,
    FINISHED,
    LEASE_S,
    PLAN,
    STARTED,
    Clock,
    begun,
    checkpoint,
    followed,
    request,
)

KEYS = places("acme", "run-1")
SECRET = "canary-7f3a"


class Flaky:
    """A store whose replies get lost, or that is not reached at all, as often as is said."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lose_replies = 0
        self.refuse = 0
        self.dies_after: int | None = None
        """Calls that it still takes."""

    def __getattr__(self, name: str):
        async def call(*args):
            if self.dies_after is not None:
                self.dies_after -= 1
            if self.refuse or (self.dies_after is not None and self.dies_after < 0):
                self.refuse = max(0, self.refuse - 1)
                raise StoreUnavailable("not reached")
            reply = await getattr(self._store, name)(*args)
            if self.lose_replies:
                self.lose_replies -= 1
                raise StoreUnavailable("no reply")
            return reply

        return call


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def flaky(valkey_store: Store) -> Flaky:
    return Flaky(valkey_store)


def journals_of(store, clock: Clock | None, owner: str = "runner-1", **options) -> StoredJournals:
    return StoredJournals(store, owner, lease_s=LEASE_S, keep_s=3600, clock=clock, **options)


@pytest.fixture
def journals(flaky: Flaky, clock: Clock) -> StoredJournals:
    return journals_of(flaky, clock)


async def test_replies_that_get_lost_change_nothing(journals: StoredJournals, flaky: Flaky) -> None:
    flaky.lose_replies = 3
    journal = await begun(journals)
    for number in range(5):
        flaky.lose_replies = 2
        done = checkpoint(f"n{number}", "x" * 100_000)
        await journal.append([NodeStarted(f"n{number}", "llm")], [done])
    flaky.lose_replies = 2
    await journal.append([FAILED], [])
    flaky.lose_replies = 2
    taken = await journals.take("acme", "run-1", deadline=1_950_000_000.0)
    assert (taken.journal.attempt, taken.journal.number, len(taken.journal.done)) == (2, 7, 5)
    flaky.lose_replies = 2
    await taken.journal.append([FINISHED], [])
    heard = await followed(journals)
    assert [each.number for each in heard] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert heard[-1].event == FINISHED


async def test_what_a_follower_reads_does_not_grow_with_the_run(
    valkey_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = journals_of(valkey_store, clock)
    journal = await begun(journals)
    asked: list[int] = []
    execute_many = valkey_store.execute_many

    async def many(commands):
        asked.append(len(commands))
        replies = await execute_many(commands)
        if len(replies) == 2:
            assert len(replies[1]) <= FOLLOW_PAGE
        return replies

    async def connect_again() -> tuple[list[int], list[int]]:
        """The numbers of the last two events, and what was asked for them."""
        asked.clear()
        await journals.head("acme", "run-1")
        behind = journal.number - 2
        told = [
            each async for batch in journals.follow("acme", "run-1", behind, wait=False) for each in batch
        ]
        return [each.number - behind for each in told], list(asked)

    monkeypatch.setattr(valkey_store, "execute_many", many)
    sizes = []
    for length in (2, 40):
        for number in range(length):
            await journal.append([NodeStarted(f"n{number}", "llm")], [checkpoint(f"n{number}", "x" * 20_000)])
        sizes.append(await connect_again())
    assert sizes == [([1, 2], [1, 2])] * 2


async def test_an_append_waits_for_a_store_that_is_out(journals: StoredJournals, flaky: Flaky) -> None:
    journal = await begun(journals)
    flaky.refuse = 4
    await journal.append([FINISHED], [checkpoint("ask")])
    assert len(await followed(journals)) == 2


async def test_a_store_that_stays_out_is_given_up_at_the_deadline(
    journals: StoredJournals, flaky: Flaky, monkeypatch
) -> None:
    monkeypatch.setattr("runtime.durability.writing.GRACE_S", 0.0)
    past = msgspec.structs.replace(request(), deadline=0.0)
    journal = await journals.begin(past, PLAN)
    flaky.refuse = 1_000
    with pytest.raises(StoreUnavailable):
        await journal.append([STARTED], [])
    assert flaky.refuse == 999


async def test_a_follower_sits_an_outage_out(journals: StoredJournals, flaky: Flaky) -> None:
    journal = await begun(journals)
    await journal.append([FINISHED], [])
    flaky.refuse = 3
    assert len(await followed(journals)) == 2


async def test_a_large_append_is_seen_when_its_last_part_is(
    journals: StoredJournals, flaky: Flaky, clock: Clock, monkeypatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 10_000)
    monkeypatch.setattr(parts, "BATCH_BYTES", 1_000)
    monkeypatch.setattr("runtime.durability.writing.GRACE_S", 0.0)
    first = await journals.begin(msgspec.structs.replace(request(), deadline=0.0), PLAN)
    await first.append([STARTED], [])
    events = [NodeFinished(f"n{index}", 0.1, outputs={"text": "y" * 500}) for index in range(100)]
    flaky.dies_after = 3
    with pytest.raises(StoreUnavailable):
        await first.append(events, [])
    flaky.dies_after = None
    assert len(await flaky.execute("XRANGE", KEYS.events, "-", "+")) > 1
    clock.pass_by(LEASE_S)
    taken = await journals.take("acme", "run-1")
    assert len(await flaky.execute("XRANGE", KEYS.events, "-", "+")) == 1
    begun_at = taken.journal.number
    assert begun_at > 1
    await taken.journal.append([RunResumed("run-1", 2, 0), *events, FINISHED], [])
    heard = await followed(journals)
    assert [each.number for each in heard] == [1, *range(begun_at + 1, begun_at + 103)]
    assert heard[1].event == RunResumed("run-1", 2, 0)


async def test_a_run_that_never_became_visible_leaves_room_for_another(
    journals: StoredJournals, clock: Clock
) -> None:
    await journals.begin(request(), PLAN)
    clock.pass_by(LEASE_S)
    journal = await begun(journals)
    assert journal.lease.token == 1
    assert len(await journals.abandoned()) == 0


async def test_hints_of_leases_are_mended(
    journals: StoredJournals, valkey_store: Store, clock: Clock
) -> None:
    held = await begun(journals)
    ended = await begun(journals, "run-2")
    await ended.append([FINISHED], [])
    await valkey_store.execute("ZADD", LEASES, 1, "acme run-1", 1, "acme run-2", 1, "acme run-3")
    assert list(await journals.abandoned()) == []
    assert await valkey_store.execute("ZRANGE", LEASES, 0, -1) == [b"acme run-1"]
    await valkey_store.execute("DEL", LEASES)
    await journals.renew([held.lease])
    clock.pass_by(LEASE_S)
    assert list(await journals.abandoned()) == [("acme", "run-1")]


async def test_runners_agree_on_the_clock_of_the_store(valkey_store: Store) -> None:
    one = StoredJournals(valkey_store, "one", lease_s=60)
    other = StoredJournals(valkey_store, "other", lease_s=60)
    journal = await begun(one)
    with pytest.raises(RunHeld):
        await other.take("acme", "run-1")
    await journal.close()
    assert list(await other.abandoned()) == [("acme", "run-1")]
    await other.take("acme", "run-1")
    with pytest.raises(LeaseLost):
        await journal.append([FINISHED], [])


async def test_of_many_runners_one_takes_the_run(flaky: Flaky, clock: Clock) -> None:
    runners = [journals_of(flaky, clock, f"runner-{index}") for index in range(8)]
    journal = await begun(runners[0])
    for attempt in range(2, 12):
        clock.pass_by(LEASE_S)
        taken = await asyncio.gather(
            *(runner.take("acme", "run-1") for runner in runners), return_exceptions=True
        )
        winners = [each for each in taken if not isinstance(each, RunHeld)]
        assert [each.journal.attempt for each in winners] == [attempt]
        with pytest.raises(LeaseLost):
            await journal.append([FINISHED], [])
        journal = winners[0].journal
        await journal.append([RunResumed("run-1", attempt, 0)], [])
    seen = [each async for batch in runners[0].follow("acme", "run-1", wait=False) for each in batch]
    assert len(seen) == 11


async def test_all_that_is_kept_has_an_end(journals: StoredJournals, valkey_store: Store) -> None:
    journal = await begun(journals)
    await journal.append([NodeStarted("ask", "llm")], [checkpoint("ask", "x" * 100_000)])
    await journal.append([FINISHED], [])
    await begun(journals, "run-2")
    names = await valkey_store.execute("KEYS", "*")
    assert len(names) == 10
    for name in names:
        left = await valkey_store.execute("PTTL", name)
        assert name == LEASES.encode() or 0 < left <= 3_600_000


async def test_runs_share_a_plan(journals: StoredJournals, valkey_store: Store) -> None:
    await begun(journals)
    await begun(journals, "run-2")
    other = msgspec.structs.replace(PLAN, description="with the same hash, and named otherwise")
    await (await journals.begin(request("run-3"), other)).append([STARTED], [])
    assert len(await valkey_store.execute("KEYS", "cgh:{acme}:plan:*")) == 2
    assert (await journals.read("acme", "run-3")).plan == other


async def test_a_run_whose_plan_is_gone_fails(
    journals: StoredJournals, valkey_store: Store, clock: Clock
) -> None:
    await begun(journals)
    clock.pass_by(LEASE_S)
    await valkey_store.execute("DEL", *await valkey_store.execute("KEYS", "cgh:{acme}:plan:*"))
    with pytest.raises(UnknownRun, match="plan"):
        await journals.take("acme", "run-1")
    assert list(await journals.abandoned()) == []
    assert (await followed(journals))[-1].event.failure.kind == "UnknownRun"


async def test_a_run_that_the_store_has_lost_is_unknown_to_its_runner(
    journals: StoredJournals, valkey_store: Store
) -> None:
    journal = await begun(journals)
    await valkey_store.execute("DEL", KEYS.run)
    with pytest.raises(UnknownRun):
        await journal.append([FINISHED], [])
    assert await journals.renew([journal.lease]) == [journal.lease]


async def test_a_checkpoint_whose_large_value_is_gone_does_not_count(
    journals: StoredJournals, valkey_store: Store, clock: Clock
) -> None:
    journal = await begun(journals)
    await journal.append([], [checkpoint("big", "x" * 100_000), checkpoint("small")])
    await valkey_store.execute("DEL", KEYS.values)
    assert set((await journals.read("acme", "run-1")).done) == {"small"}


async def test_large_values_that_nobody_needs_go(journals: StoredJournals, valkey_store: Store) -> None:
    journal = await begun(journals)
    for text in ("a", "b", "c"):
        await journal.append([], [checkpoint("state", text * 100_000)])
        assert await valkey_store.execute("HLEN", KEYS.values) == 1
    await journal.append([], [checkpoint("state", "d")])
    assert await valkey_store.execute("HLEN", KEYS.values) == 0
