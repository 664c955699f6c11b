"""What every implementation of `Journals` must do: in memory, on Valkey and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from cluster.errors import Overloaded
from cluster.messages import Usage
from graphs.documents import Document
from runtime.durability import bounds
from runtime.durability.bounds import MAX_EVENTS, MAX_VALUE_BYTES
from runtime.durability.journal import Journals
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import Checkpoint, Lease
from runtime.durability.stored import StoredJournals
from runtime.errors import (
    LeaseLost,
    NodeError,
    RunEnded,
    RunExists,
    RunHeld,
    TooMuchToKeep,
    UnknownRun,
)
from runtime.events import NodeDelta, NodeFinished, NodeStarted, RunResumed
from runtime.sealing import EVERYONE, Sealing
from runtime.store.client import Store
from tests.runtime.durability.journals import (
    FAILED,
    FINISHED,
    LEASE_S,
    PLAN,
    STARTED,
    SUSPENDED,
    Clock,
    begun,
    checkpoint,
    followed,
    request,
)

MOST = 3


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "valkey", "redis", "sealed"])
async def journals(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Journals]:
    if request.param == "memory":
        yield MemoryJournals(lease_s=LEASE_S, keep_s=3600, most=MOST, clock=clock)
        return
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "valkey_url")
    sealing = Sealing([bytes(32)], [EVERYONE]) if request.param == "sealed" else Sealing()
    store = Store.connect(url, timeout_s=5)
    await store.execute("FLUSHALL")
    yield StoredJournals(
        store, "runner-1", lease_s=LEASE_S, keep_s=3600, most=MOST, sealing=sealing, clock=clock
    )
    await store.close()


async def test_what_is_appended_can_be_followed(journals: Journals) -> None:
    journal = await journals.begin(request(), PLAN)
    assert (journal.lease, journal.attempt, journal.number) == (Lease("acme", "run-1", 1), 1, 0)
    await journal.append([STARTED, NodeStarted("ask", "llm")], [])
    done = NodeFinished("ask", 0.1, Usage(3, 4), {"text": "ü"})
    await journal.append([done], [checkpoint("ask")])
    await journal.append([FINISHED], [])
    assert journal.number == 4
    heard = await followed(journals)
    assert [each.event for each in heard] == [STARTED, NodeStarted("ask", "llm"), done, FINISHED]
    assert [each.number for each in heard] == [1, 2, 3, 4]
    assert [each.number for each in await followed(journals, after=2)] == [3, 4]
    assert await followed(journals, after=4) == []


async def test_a_follower_hears_what_comes_while_it_listens(journals: Journals) -> None:
    journal = await begun(journals)
    hearing = asyncio.create_task(followed(journals))
    for index in range(5):
        await asyncio.sleep(0.01)
        await journal.append([NodeStarted(f"n{index}", "llm")], [])
    await journal.append([FINISHED], [])
    assert [each.number for each in await hearing] == [1, 2, 3, 4, 5, 6, 7]


async def test_what_is_kept_by_now_is_told_without_waiting(journals: Journals) -> None:
    journal = await begun(journals)
    await journal.append([NodeDelta("ask", "word ") for _ in range(MAX_EVENTS)], [])
    heard = [each async for batch in journals.follow("acme", "run-1", wait=False) for each in batch]
    assert heard[0] == (1, STARTED)
    assert heard[-1].number < journal.number  # what was left out is not waited for


async def test_a_run_begins_once(journals: Journals) -> None:
    await begun(journals)
    with pytest.raises(RunExists, match="run-1"):
        await journals.begin(request(), PLAN)


async def test_a_run_that_somebody_holds_is_not_taken(journals: Journals, clock: Clock) -> None:
    await begun(journals)
    clock.pass_by(LEASE_S - 1)
    assert list(await journals.abandoned()) == []
    with pytest.raises(RunHeld):
        await journals.take("acme", "run-1")


async def test_an_abandoned_run_goes_on_where_it_was(journals: Journals, clock: Clock) -> None:
    first = await begun(journals)
    done = checkpoint("ask", usage=Usage(3, 4), seconds=0.2)
    await first.append([NodeStarted("ask", "llm")], [done])
    clock.pass_by(LEASE_S)
    assert list(await journals.abandoned()) == [("acme", "run-1")]
    taken = await journals.take("acme", "run-1")
    assert (taken.request, taken.plan) == (request(), PLAN)
    assert (taken.journal.attempt, taken.journal.number) == (2, 2)
    assert taken.journal.done == {"ask": done}
    assert taken.journal.lease.token > first.lease.token
    assert list(await journals.abandoned()) == []
    await taken.journal.append([RunResumed("run-1", 2, 1), FINISHED], [])
    assert [each.number for each in await followed(journals)] == [1, 2, 3, 4]


async def test_a_head_is_what_all_of_it_says(journals: Journals, clock: Clock) -> None:
    journal = await begun(journals)
    await journal.append([SUSPENDED], [checkpoint("ask")])
    await journals.take("acme", "run-1", deadline=1_950_000_000.0)
    head, kept = await journals.head("acme", "run-1"), await journals.read("acme", "run-1")
    assert head == (kept.request, kept.state, kept.attempt)
    assert (head.request.deadline, head.state, head.attempt) == (1_950_000_000.0, "running", 2)


async def test_whoever_lost_the_lease_writes_nothing(journals: Journals, clock: Clock) -> None:
    first = await begun(journals)
    clock.pass_by(LEASE_S)
    second = (await journals.take("acme", "run-1")).journal
    with pytest.raises(LeaseLost):
        await first.append([NodeStarted("late", "llm")], [checkpoint("late")])
    await first.close()
    with pytest.raises(RunHeld):
        await journals.take("acme", "run-1")
    await second.append([FINISHED], [])
    assert [each.event for each in await followed(journals)] == [STARTED, FINISHED]
    assert (await journals.read("acme", "run-1")).done == {}


async def test_a_late_lease_that_nobody_took_still_holds(journals: Journals, clock: Clock) -> None:
    journal = await begun(journals)
    clock.pass_by(10 * LEASE_S)
    await journal.append([NodeStarted("ask", "llm")], [])
    assert list(await journals.abandoned()) == []


async def test_leases_are_renewed_together(journals: Journals, clock: Clock) -> None:
    leases = [(await begun(journals, f"run-{index}")).lease for index in range(3)]
    clock.pass_by(LEASE_S)
    other = (await journals.take("acme", "run-1")).journal
    assert await journals.renew(leases) == [leases[1]]
    assert await journals.renew([]) == []
    clock.pass_by(LEASE_S - 1)
    assert list(await journals.abandoned()) == []
    assert await journals.renew([other.lease]) == []
    clock.pass_by(1)
    assert sorted(await journals.abandoned()) == [("acme", "run-0"), ("acme", "run-2")]


async def test_a_lease_given_back_is_free_at_once(journals: Journals) -> None:
    journal = await begun(journals)
    await journal.close()
    await journal.close()
    assert list(await journals.abandoned()) == [("acme", "run-1")]
    assert (await journals.take("acme", "run-1")).journal.attempt == 2


async def test_a_run_that_never_spoke_is_forgotten(journals: Journals, clock: Clock) -> None:
    await journals.begin(request(), PLAN)
    clock.pass_by(LEASE_S)
    assert list(await journals.abandoned()) == []
    for looking in (
        journals.take("acme", "run-1"),
        journals.head("acme", "run-1"),
        journals.read("acme", "run-1"),
        followed(journals),
    ):
        with pytest.raises(UnknownRun, match="run-1"):
            await looking


async def test_a_run_that_succeeded_is_not_taken_again(journals: Journals, clock: Clock) -> None:
    journal = await begun(journals)
    await journal.append([FINISHED], [checkpoint("ask")])
    clock.pass_by(LEASE_S)
    assert list(await journals.abandoned()) == []
    for deadline in (None, 1_950_000_000.0):
        with pytest.raises(RunEnded, match="succeeded"):
            await journals.take("acme", "run-1", deadline=deadline)
    assert await journals.renew([journal.lease]) == [journal.lease]
    with pytest.raises(LeaseLost):
        await journal.append([NodeStarted("late", "llm")], [])


@pytest.mark.parametrize(("last", "state"), [(FAILED, "failed"), (SUSPENDED, "suspended")])
async def test_a_run_that_failed_or_waits_goes_on_when_it_is_resumed(
    journals: Journals, clock: Clock, last, state
) -> None:
    journal = await begun(journals)
    await journal.append([last], [checkpoint("ask")])
    assert (await journals.read("acme", "run-1")).state == state
    assert list(await journals.abandoned()) == []
    with pytest.raises(RunEnded, match=r"resume|decided"):
        await journals.take("acme", "run-1")
    taken = await journals.take("acme", "run-1", deadline=1_950_000_000.0)
    assert taken.request == msgspec.structs.replace(request(), deadline=1_950_000_000.0)
    assert set(taken.journal.done) == {"ask"}
    await taken.journal.append([RunResumed("run-1", 2, 1)], [])
    clock.pass_by(LEASE_S)
    again = await journals.take("acme", "run-1")
    assert again.request.deadline == 1_950_000_000.0
    await again.journal.append([FINISHED], [])
    assert [each.event for each in await followed(journals)][1:] == [
        last,
        RunResumed("run-1", 2, 1),
        FINISHED,
    ]


async def test_a_fork_begins_with_what_is_done(journals: Journals) -> None:
    await begun(journals)
    done = [checkpoint("ask"), checkpoint("search[3].each", "x" * 100_000)]
    journal = await journals.begin(request("run-2"), PLAN, done)
    assert journal.done == {each.path: each for each in done}
    await journal.append([STARTED], [])
    kept = await journals.read("acme", "run-2")
    assert (kept.request, kept.plan, kept.state, kept.attempt) == (request("run-2"), PLAN, "running", 1)
    assert kept.done == {each.path: each for each in done}


async def test_tenants_are_kept_apart(journals: Journals, clock: Clock) -> None:
    mine = await begun(journals)
    yours = await begun(journals, tenant="globex")
    await mine.append([NodeStarted("mine", "llm")], [checkpoint("mine")])
    await yours.append([FINISHED], [])
    assert [each.event for each in await followed(journals, tenant="globex")] == [STARTED, FINISHED]
    assert (await journals.read("globex", "run-1")).done == {}
    for looking in (journals.take("initech", "run-1"), followed(journals, tenant="initech")):
        with pytest.raises(UnknownRun):
            await looking


async def test_outputs_come_back_as_they_were(journals: Journals) -> None:
    document = Document("d1", "text", score=0.5)
    outputs = {"documents": [document], "pair": (1, None), "raw": b"\x00", "number": 2.5}
    journal = await begun(journals)
    await journal.append(
        [], [Checkpoint("search", outputs), Checkpoint("plan+0", "reply"), Checkpoint("no", None)]
    )
    done = (await journals.read("acme", "run-1")).done
    expected = {
        "documents": [document],
        "pair": [1, None],
        "raw": b"\x00",
        "number": 2.5,
    }
    assert done["search"].outputs == expected
    assert (done["plan+0"].outputs, done["no"].outputs) == ("reply", None)


async def test_large_outputs_come_back(journals: Journals, clock: Clock) -> None:
    text = "x" * 1_000_000
    journal = await begun(journals)
    for index in range(20):  # together far beyond the room of a run, but they are equal
        await journal.append([], [Checkpoint(f"n{index}", {"text": text, "n": index})])
    await journal.append([], [Checkpoint("part+0", text)])
    done = (await journals.read("acme", "run-1")).done
    assert {path: each.outputs for path, each in done.items()} == {
        "part+0": text,
        **{f"n{index}": {"text": text, "n": index} for index in range(20)},
    }


async def test_what_is_too_large_is_refused_by_name(journals: Journals) -> None:
    journal = await begun(journals)
    many = [checkpoint(f"n{index}", str(index) * 10**6) for index in range(20)]
    huge = checkpoint("ask", "x" * MAX_VALUE_BYTES)
    with pytest.raises(TooMuchToKeep, match=r"ask gave 4\.0 MiB as text"):
        await journal.append([NodeStarted("ask", "llm")], [huge])
    with pytest.raises(NodeError, match="ask gave cannot be kept"):
        await journal.append([], [Checkpoint("ask", {"n": 2**70})])
    with pytest.raises(TooMuchToKeep, match="durability none"):
        await journal.append([], many)
    await journal.append([FAILED], [])
    assert [each.event for each in await followed(journals)] == [STARTED, FAILED]


async def test_a_path_that_is_done_again_is_replaced(journals: Journals) -> None:
    journal = await begun(journals)
    for text in ("a", "b" * 100_000, "c"):
        await journal.append([], [checkpoint("ask", text)])
    assert (await journals.read("acme", "run-1")).done == {"ask": checkpoint("ask", "c")}


async def test_checkpoints_do_not_grow_with_history(journals: Journals, monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SUPERSEDED", 10)
    journal = await begun(journals)
    for number in range(60):
        state = checkpoint(f"refine+{number}", supersedes=(f"refine[{number}]", f"refine+{number - 1}"))
        await journal.append([], [checkpoint(f"refine[{number}].draft", "x" * 10), state])
    done = (await journals.read("acme", "run-1")).done
    assert "refine+59" in done
    assert len(done) == 11
    assert "refine[59].draft" in done
    assert "refine[0].draft" not in done


async def test_events_are_thinned_when_there_are_too_many(journals: Journals) -> None:
    journal = await begun(journals)
    many = [NodeDelta("ask", "word ") for _ in range(MAX_EVENTS)]
    await journal.append(many, [])
    await journal.append([NodeStarted("ask", "llm"), FINISHED], [])
    heard = await followed(journals)
    assert len(heard) < MAX_EVENTS
    assert heard[-1] == (MAX_EVENTS + 3, FINISHED)
    assert heard[-2] == (MAX_EVENTS + 2, NodeStarted("ask", "llm"))
    assert journal.number == MAX_EVENTS + 3


async def test_a_tenant_keeps_the_newest_runs(journals: Journals, clock: Clock) -> None:
    for index in range(MOST):
        journal = await begun(journals, f"run-{index}")
        clock.pass_by(1)
        await journal.append([FAILED if index else FINISHED], [checkpoint("ask")])
    await begun(journals, "run-new")
    with pytest.raises(UnknownRun):
        await journals.read("acme", "run-0")
    assert (await journals.read("acme", "run-1")).state == "failed"


async def test_runs_that_go_on_are_not_forgotten_for_new_ones(journals: Journals) -> None:
    held = [await begun(journals, f"run-{index}") for index in range(MOST)]
    with pytest.raises(Overloaded, match=f"{MOST} durable runs"):
        await journals.begin(request("run-new"), PLAN)
    await begun(journals, "run-new", tenant="globex")
    await held[2].append([FAILED], [])
    await journals.take("acme", "run-2", deadline=1_950_000_000.0)
    with pytest.raises(Overloaded):
        await journals.begin(request("run-new"), PLAN)
    await held[1].append([FINISHED], [])
    await begun(journals, "run-new")
    with pytest.raises(UnknownRun):
        await journals.read("acme", "run-1")


async def test_a_large_end_is_seen_as_a_whole(journals: Journals) -> None:
    journal = await journals.begin(request(), PLAN)
    done = [checkpoint(f"n{index}", str(index % 10) * 50_000) for index in range(100)]
    events = [NodeFinished(f"n{index}", 0.1, outputs={"text": "y" * 10_000}) for index in range(100)]
    await journal.append([STARTED, *events, FINISHED], done)
    assert len(await followed(journals)) == 102
    assert len((await journals.read("acme", "run-1")).done) == 100
