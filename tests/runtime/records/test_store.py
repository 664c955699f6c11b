"""Records on both kinds of store."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from runtime.records import store as module
from runtime.records.model import Kept, NodeRecord, RunRecord
from runtime.records.store import RunStore
from runtime.store.client import Store
from runtime.store.errors import CommandFailed, InvalidName

NOW = 1_000.0


@pytest.fixture
def runs(store: Store) -> RunStore:
    return RunStore(store, keep_s=60)


def run(number: int, graph: str = "rag", tenant: str = "acme", started: float | None = None) -> RunRecord:
    at = NOW + number if started is None else started
    return RunRecord(
        f"run-{number}", tenant, graph, "1", "hash", "succeeded", started=at, deadline=at + 30, seconds=0.5
    )


def ids(page) -> list[str]:
    return [each.run_id for each in page.runs]


def anything(_graph: str) -> bool:
    return True


async def test_a_record_comes_back_whole(runs: RunStore) -> None:
    node = NodeRecord("search[3].each", "retrieve", "skipped", 0.1, reason="its condition does not hold")
    whole = msgspec.structs.replace(
        run(1), inputs=Kept({"q": "ü"}, {"text": 9_999}), nodes=[node], nodes_left_out=7
    )
    await runs.write([whole])
    assert await runs.load("acme", "run-1", NOW) == whole
    assert await runs.load("acme", "run-2", NOW) is None


async def test_the_end_replaces_the_beginning(runs: RunStore) -> None:
    begun = msgspec.structs.replace(run(1), status="running", seconds=0.0)
    await runs.write([begun])
    assert (await runs.newest("acme", 9, NOW, wanted=anything)).runs[0].status == "running"
    await runs.write([run(1)])
    page = await runs.newest("acme", 9, NOW, wanted=anything)
    assert [(each.run_id, each.status) for each in page.runs] == [("run-1", "succeeded")]


async def test_a_run_that_was_never_heard_of_again_is_shown_as_failed(runs: RunStore) -> None:
    await runs.write([msgspec.structs.replace(run(1), status="running")])
    later = NOW + 1_000
    loaded = await runs.load("acme", "run-1", later)
    assert loaded is not None
    assert loaded.status == "failed"
    assert (await runs.newest("acme", 9, later, wanted=anything)).runs[0].status == "failed"


async def test_lists_page_from_the_newest_to_the_oldest(runs: RunStore) -> None:
    await runs.write([run(number, "rag" if number % 2 else "other") for number in range(7)])
    first = await runs.newest("acme", 3, NOW, wanted=anything)
    assert (ids(first), first.more) == (["run-6", "run-5", "run-4"], True)
    second = await runs.newest("acme", 3, NOW, wanted=anything, after="run-4")
    assert (ids(second), second.more) == (["run-3", "run-2", "run-1"], True)
    last = await runs.newest("acme", 3, NOW, wanted=anything, after="run-1")
    assert (ids(last), last.more) == (["run-0"], False)
    assert ids(await runs.newest("acme", 3, NOW, wanted=anything, after="gone")) == []
    assert ids(await runs.newest("acme", 9, NOW, wanted=lambda graph: graph == "other")) == [
        "run-6",
        "run-4",
        "run-2",
        "run-0",
    ]


async def test_runs_of_one_status_are_found_however_far_apart(
    runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEARCHED_AT_ONCE", 2)
    records = [run(number) for number in range(9)]
    failed = [replace(each, status="failed") for each in records[::4]]
    await runs.write([*records, *failed])
    first = await runs.newest("acme", 2, NOW, wanted=anything, status="failed")
    assert (ids(first), first.more) == (["run-8", "run-4"], True)
    last = await runs.newest("acme", 2, NOW, wanted=anything, status="failed", after="run-4")
    assert (ids(last), last.more) == (["run-0"], False)


async def test_a_request_to_cancel_can_be_taken_back(runs: RunStore) -> None:
    await runs.ask_to_cancel("acme", "run-1")
    await runs.cancel_no_more("acme", "run-1")
    assert await runs.asked_to_cancel([("acme", "run-1")]) == []


async def test_a_tenant_keeps_its_newest_runs(store: Store) -> None:
    few = RunStore(store, keep_s=60, most=3)
    for number in range(5):
        await few.write([run(number)])
    assert ids(await few.newest("acme", 9, NOW, wanted=anything)) == ["run-4", "run-3", "run-2"]
    assert await few.load("acme", "run-1", NOW) is None
    keys = sorted(await store.execute("KEYS", "*"))
    assert keys == [
        b"cgh:{acme}:run:run-2",
        b"cgh:{acme}:run:run-3",
        b"cgh:{acme}:run:run-4",
        b"cgh:{acme}:runs",
    ]


async def test_everything_expires(store: Store, runs: RunStore) -> None:
    await runs.write([run(1)])
    for key in ("cgh:{acme}:run:run-1", "cgh:{acme}:runs"):
        assert 59 <= await store.execute("TTL", key) <= 60
    await runs.ask_to_cancel("acme", "run-1")
    assert await store.execute("TTL", "cgh:{acme}:cancel:run-1") > 0


async def test_expired_runs_leave_the_index(store: Store, runs: RunStore) -> None:
    await runs.write([run(1), run(2, started=NOW + 100)])
    assert await store.execute("ZRANGE", "cgh:{acme}:runs", 0, -1) == [b"run-2 rag"]


async def test_a_listed_run_that_has_expired_is_left_out(store: Store, runs: RunStore) -> None:
    await runs.write([run(1), run(2)])
    await store.execute("DEL", "cgh:{acme}:run:run-2")
    assert ids(await runs.newest("acme", 9, NOW, wanted=anything)) == ["run-1"]


async def test_tenants_do_not_see_each_other(runs: RunStore) -> None:
    await runs.write([run(1), run(1, tenant="rivals", started=NOW + 9)])
    mine = await runs.load("acme", "run-1", NOW)
    assert mine is not None
    assert mine.started == NOW + 1
    for tenant in ("acme2", "acm", "ACME"):
        assert await runs.load(tenant, "run-1", NOW) is None
        assert ids(await runs.newest(tenant, 9, NOW, wanted=anything)) == []
    await runs.ask_to_cancel("rivals", "run-1")
    assert await runs.asked_to_cancel([("acme", "run-1"), ("rivals", "run-1")]) == [("rivals", "run-1")]
    assert await runs.asked_to_cancel([]) == []


@pytest.mark.parametrize("bad", ["", "a:b", "a}b", "../a", "x" * 129])
async def test_names_that_could_reach_other_keys_are_refused(runs: RunStore, bad: str) -> None:
    for call in (runs.load("acme", bad, NOW), runs.ask_to_cancel("acme", bad), runs.load(bad, "r", NOW)):
        with pytest.raises(InvalidName):
            await call


async def test_a_refused_write_is_raised(store: Store, runs: RunStore) -> None:
    await store.execute("SET", "cgh:{acme}:runs", "not an index")
    with pytest.raises(CommandFailed):
        await runs.write([run(1)])
