"""Group commit: who shares a round trip, who waits, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from runtime.store import group_commit
from runtime.store.client import Reply, Script, ScriptCall, Store
from runtime.store.errors import CommandFailed, StoreUnavailable
from runtime.store.group_commit import GroupCommit

REVOKE = Script("key_revoke")
"""Any script will do: this one answers 1 for a hash that exists, 0 for none, an error for a list."""


class WatchedStore:
    """A store that notes the size of each batch, and can be held up or break."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Exception | None = None
        self.on_reply: Callable[[], object] = lambda: None
        """Runs when the replies are there, before those who wait for them."""

    async def run_many(self, calls: list[ScriptCall]) -> list[Reply]:
        self.batches.append([call.keys[0] for call in calls])
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        replies = await self.store.run_many(calls)
        asyncio.get_running_loop().call_soon(self.on_reply)
        return replies


@pytest.fixture
async def watched(valkey_store: Store) -> WatchedStore:
    await valkey_store.execute("HSET", "hash", "f", "v")
    await valkey_store.execute("RPUSH", "list", "v")
    return WatchedStore(valkey_store)


@pytest.fixture
def commit(watched: WatchedStore) -> GroupCommit:
    return GroupCommit(watched)  # type: ignore[arg-type]


def call(key: str) -> ScriptCall:
    # A list has no HSET: the script fails on it.
    return ScriptCall(REVOKE, [key], [60_000])


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_the_calls_of_one_turn_share_a_round_trip(commit: GroupCommit, watched: WatchedStore) -> None:
    replies = await asyncio.gather(*(commit.run(call(key)) for key in ("hash", "none", "hash")))
    assert replies == [1, 0, 1]
    assert watched.batches == [["hash", "none", "hash"]]


async def test_those_that_come_meanwhile_go_together_next(commit: GroupCommit, watched: WatchedStore) -> None:
    watched.open.clear()
    first = asyncio.ensure_future(commit.run(call("a")))
    await turns(3)
    later = [asyncio.ensure_future(commit.run(call(key))) for key in ("b", "c")]
    await turns(3)
    later.append(asyncio.ensure_future(commit.run(call("d"))))
    await turns(3)
    watched.open.set()
    assert await asyncio.gather(first, *later) == [0, 0, 0, 0]
    assert watched.batches == [["a"], ["b", "c", "d"]]


async def test_one_that_lingers_goes_with_the_next(commit: GroupCommit, watched: WatchedStore) -> None:
    lingering = commit.submit(call("hash"), linger=True)
    await turns(3)
    assert watched.batches == []
    assert await commit.run(call("none")) == 0
    assert lingering.result() == 1
    assert watched.batches == [["hash", "none"]]


async def test_one_that_lingers_goes_alone_in_the_end(commit: GroupCommit, watched: WatchedStore) -> None:
    assert await asyncio.gather(*(commit.submit(call(key), linger=True) for key in ("hash", "none"))) == [
        1,
        0,
    ]
    assert watched.batches == [["hash", "none"]]
    assert await commit.submit(call("hash"), linger=True) == 1


async def test_one_that_lingers_hurries_nobody(commit: GroupCommit, watched: WatchedStore) -> None:
    watched.open.clear()
    first = asyncio.ensure_future(commit.run(call("a")))
    await turns(3)
    lingering = commit.submit(call("b"), linger=True)
    watched.open.set()
    assert await first == 0
    assert not lingering.done()
    assert await lingering == 0
    assert watched.batches == [["a"], ["b"]]


async def test_a_backlog_that_lingers_holds_up_nobody_and_is_not_held_up(
    commit: GroupCommit, watched: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH", 4)
    monkeypatch.setattr(group_commit, "LINGERING_SHARE", 1)
    backlog = [commit.submit(call(f"old-{number}"), linger=True) for number in range(4)]
    await asyncio.gather(*(commit.run(call(f"new-{number}")) for number in range(7)))
    assert watched.batches[:2] == [
        ["old-0", "new-0", "new-1", "new-2"],
        ["old-1", "new-3", "new-4", "new-5"],
    ]
    await asyncio.gather(*backlog)
    assert watched.batches[2:] == [["old-2", "old-3", "new-6"]]


async def test_a_failed_call_fails_alone(commit: GroupCommit) -> None:
    replies = await asyncio.gather(
        *(commit.run(call(key)) for key in ("hash", "list", "none")), return_exceptions=True
    )
    assert replies[0] == 1
    assert isinstance(replies[1], CommandFailed)
    assert replies[2] == 0


async def test_a_batch_is_bounded(
    commit: GroupCommit, watched: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH", 4)
    await asyncio.gather(*(commit.run(call(str(number))) for number in range(10)))
    assert [len(batch) for batch in watched.batches] == [4, 4, 2]


async def test_the_queue_is_bounded(
    commit: GroupCommit, watched: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_WAITING", 3)
    waiting = [asyncio.ensure_future(commit.run(call("a"))) for _ in range(3)]
    await turns(1)
    with pytest.raises(StoreUnavailable, match="wait"):
        commit.submit(call("b"))
    assert await asyncio.gather(*waiting) == [0, 0, 0]
    assert await commit.run(call("a")) == 0


async def test_one_that_leaves_before_sending_is_not_sent(commit: GroupCommit, watched: WatchedStore) -> None:
    abandoned: list[Reply] = []
    calls = [asyncio.ensure_future(commit.run(call(key), abandoned=abandoned.append)) for key in "ab"]
    await turns(1)
    calls[0].cancel()
    assert await calls[1] == 0
    assert watched.batches == [["b"]]
    assert abandoned == []


async def test_one_that_leaves_later_has_its_reply_handed_over(
    commit: GroupCommit, watched: WatchedStore
) -> None:
    abandoned: list[Reply] = []
    watched.open.clear()
    calls = [asyncio.ensure_future(commit.run(call("hash"), abandoned=abandoned.append)) for _ in range(2)]
    await turns(3)
    calls[0].cancel()
    await turns(1)
    watched.open.set()
    assert await calls[1] == 1
    assert abandoned == [1]


async def test_one_that_leaves_when_its_reply_is_there_hands_it_over_too(
    commit: GroupCommit, watched: WatchedStore
) -> None:
    abandoned: list[Reply] = []
    leaving = asyncio.ensure_future(commit.run(call("hash"), abandoned=abandoned.append))
    watched.on_reply = leaving.cancel
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert abandoned == [1]


async def test_an_outage_fails_those_behind_as_well_and_then_it_recovers(
    commit: GroupCommit, watched: WatchedStore
) -> None:
    watched.open.clear()
    watched.failure = StoreUnavailable("out")
    calls = [asyncio.ensure_future(commit.run(call("a")))]
    await turns(3)
    calls.append(asyncio.ensure_future(commit.run(call("b"))))
    calls.append(asyncio.ensure_future(commit.submit(call("c"), linger=True)))
    await turns(3)
    watched.open.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(result) for result in results] == ["out"] * 3
    assert len({id(result) for result in results}) == 3
    assert watched.batches == [["a"]]
    watched.failure = None
    assert await commit.run(call("hash")) == 1


async def test_a_fault_of_ours_leaves_nobody_waiting(commit: GroupCommit, watched: WatchedStore) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    watched.open.clear()
    watched.failure = ZeroDivisionError()
    calls: list[asyncio.Future[Reply]] = [asyncio.ensure_future(commit.run(call("a")))]
    await turns(3)
    calls.append(asyncio.ensure_future(commit.run(call("b"))))
    calls.append(commit.submit(call("c"), linger=True))
    await turns(3)
    sender = commit._sender
    assert sender is not None
    watched.open.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert isinstance(sender.exception(), ZeroDivisionError)
    assert faults == []
