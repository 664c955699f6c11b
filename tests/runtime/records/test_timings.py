"""What nodes took, added up over runs."""

import pytest

from runtime.records.model import NodeRecord, RunRecord
from runtime.records.store import RunStore
from runtime.records.timings import TimingStore, taken

PLAN = "0123456789abcdef0123456789abcdef"


def record(*nodes: NodeRecord, status="succeeded", run_id="run-1", plan_hash=PLAN) -> RunRecord:
    return RunRecord(run_id, "acme", "rag", "1.0.0", plan_hash, status, 1.0, 2.0, nodes=list(nodes))


def node(path: str, seconds: float, status="succeeded", **fields) -> NodeRecord:
    return NodeRecord(path, "llm", status, 0.0, seconds, **fields)


def test_only_what_went_as_it_should_is_counted():
    nodes = [
        node("search[0].each", 1.0),
        node("search[12].each", 2.0),
        node("broken", 3.0, "failed"),
        node("again", 4.0, attempts=2),
        node("other", 5.0, fell_back_to="value"),
    ]
    assert list(taken([record(*nodes), record(*nodes, status="running")])) == [
        (PLAN, "search.each", 1.0),
        (PLAN, "search.each", 2.0),
    ]


async def test_means_over_all_runs_of_a_plan(store):
    timings = TimingStore(store)
    await timings.add([record(node("a", 1.0), node("map[0].each", 0.5)), record(node("a", 2.0))])
    await timings.add([record(node("a", 6.0)), record(node("a", 9.0), plan_hash="f" * 32)])
    assert await timings.means(PLAN) == pytest.approx({"a": 3.0, "map.each": 0.5})
    assert await timings.means("f" * 32) == {"a": 9.0}
    assert await timings.means("e" * 32) == {}


async def test_a_run_is_counted_when_its_record_is_written(store):
    runs = RunStore(store)
    await runs.write([record(node("a", 1.0), status="running")])
    await runs.write([record(node("a", 4.0))])
    assert await TimingStore(store).means(PLAN) == {"a": 4.0}


async def test_sums_are_forgotten_when_a_plan_is_not_run_any_more(store):
    await TimingStore(store).add([record(node("a", 1.0))])
    assert await store.execute("TTL", f"cgh:timings:{PLAN}") > 0
