"""Records written behind the backs of real runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest
import structlog

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure
from graphs.loader import load
from graphs.pipeline import Pipeline
from runtime.compiler.compile import compile_pipeline
from runtime.durability.memory import MemoryJournals
from runtime.events import NodeFinished, NodeStarted, NodeWaiting, RunFinished, RunStarted
from runtime.executor.kinds.kind import Resources
from runtime.records import log as module
from runtime.records.log import RunLog
from runtime.records.model import RunRecord
from runtime.records.store import RunStore
from runtime.request import RunRequest
from runtime.runner import Runner
from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from tests.graphs.shapes import rag
from tests.runtime.parts import Shelf, events_of, pools, request

NOW = 1_000.0


@asynccontextmanager
async def writing(log: RunLog) -> AsyncIterator[None]:
    writer = asyncio.create_task(log.write())
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.wait([writer])


def runner_with(log: RunLog, pipeline: Pipeline, script: FakeScript | None = None) -> Runner:
    models = pools() if script is None else pools(small=script)
    return Runner([compile_pipeline(pipeline)], Resources(models, {"manual": Shelf()}), log)


class Memory:
    """A store of records that may be out."""

    def __init__(self) -> None:
        self.written = []
        self.out = False
        self.tried: asyncio.Queue = asyncio.Queue()

    async def write(self, records) -> None:
        for record in records:
            self.tried.put_nowait(record)
        if self.out:
            raise StoreUnavailable("it is out")
        self.written += records

    async def ended(self):
        """The next record of a run that has ended, once somebody tried to write it."""
        async with asyncio.timeout(60):
            while (record := await self.tried.get()).status == "running":
                pass
        return record


async def test_a_run_is_recorded_as_it_begins_and_as_it_ends(valkey_store: Store) -> None:
    records = RunStore(valkey_store)
    log = RunLog(records, clock=lambda: NOW)
    runner = runner_with(log, rag(), FakeScript(output_tokens=3))
    seen = []
    async with writing(log):
        asked = request(rag(), tenant="acme", run_id="run-1", deadline=4e9)
        async with aclosing(runner.run(asked)) as events:
            async for event in events:
                if isinstance(event, RunStarted):
                    while (begun := await records.load("acme", "run-1", NOW)) is None:
                        await asyncio.sleep(0.001)
                    seen.append(begun.status)
        while (ended := await records.load("acme", "run-1", NOW)).status == "running":
            await asyncio.sleep(0.001)
    assert ended.status == "succeeded"
    assert [node.node for node in ended.nodes] == ["vector", "search", "ask", "answer"]
    assert all(node.status == "succeeded" for node in ended.nodes)
    starts = [node.started for node in ended.nodes]
    assert starts == sorted(starts)
    assert ended.nodes[-1].started + ended.nodes[-1].seconds <= ended.seconds
    assert (ended.started, ended.inputs.values) == (NOW, {"question": "why"})
    assert seen in (["running"], ["succeeded"])


async def test_a_run_that_waits_for_a_person_is_written_meanwhile() -> None:
    memory = Memory()
    log = RunLog(memory)
    watch = log.watch(RunRequest("run-1", "g", {}, 4e9, tenant="acme"))
    watch(RunStarted("run-1", "g", "1", "hash"))
    watch(NodeStarted("ask", "approval"))
    await log.flush()
    watch(NodeWaiting("ask", "May I?"))
    await log.flush()
    assert [record.nodes[0].status for record in memory.written] == ["running", "waiting"]


async def test_a_quick_run_is_written_once() -> None:
    memory = Memory()
    log = RunLog(memory, clock=lambda: NOW)
    runner = runner_with(log, rag())
    await events_of(runner, request(rag(), tenant="acme"))
    async with writing(log):
        await memory.ended()
    assert [record.status for record in memory.written] == ["succeeded"]


async def test_a_run_whose_reader_leaves_is_cancelled() -> None:
    memory = Memory()
    log = RunLog(memory)
    runner = runner_with(log, rag(), FakeScript(first_token_s=60))
    async with aclosing(runner.run(request(rag(), tenant="acme"))) as events:
        async for event in events:
            if isinstance(event, NodeStarted) and event.node == "answer":
                break
    async with writing(log):
        record = await memory.ended()
    assert (record.status, record.error.kind) == ("cancelled", "RunCancelled")
    assert record.nodes[-1].status == "cancelled"


async def test_a_run_that_is_refused_or_of_no_tenant_is_not_recorded() -> None:
    memory = Memory()
    log = RunLog(memory)
    runner = runner_with(log, rag())
    await events_of(runner, request(rag(), tenant="acme", run_id="refused", inputs={}))
    await events_of(runner, request(rag(), tenant="", run_id="nobody's"))
    await events_of(runner, request(rag(), tenant="acme", run_id="kept"))
    async with writing(log):
        await memory.ended()
    assert [record.run_id for record in memory.written] == ["kept"]


async def test_without_a_store_runs_go_on_and_it_is_said_once() -> None:
    memory = Memory()
    memory.out = True
    log = RunLog(memory)
    runner = runner_with(log, rag())
    with structlog.testing.capture_logs() as said:
        async with writing(log):
            for number in range(3):
                events = await events_of(runner, request(rag(), tenant="acme", run_id=f"run-{number}"))
                assert isinstance(events[-1], RunFinished)
                await memory.ended()
            memory.out = False
            await events_of(runner, request(rag(), tenant="acme", run_id="run-9"))
            await memory.ended()
            await asyncio.sleep(0)
    lost = [line["event"] for line in said if line["event"] == "run_records_lost"]
    again = [line for line in said if line["event"] == "run_records_kept_again"]
    assert len(lost) == 1
    assert len(again) == 1
    assert again[0]["lost"] >= 3
    assert {record.run_id for record in memory.written} == {"run-9"}


async def test_what_waits_is_written_before_the_end() -> None:
    memory = Memory()
    log = RunLog(memory)
    runner = runner_with(log, rag())
    await events_of(runner, request(rag(), tenant="acme"))
    assert memory.written == []
    await log.flush()
    assert [record.status for record in memory.written] == ["succeeded"]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    memory = Memory()
    log = RunLog(memory)
    runner = runner_with(log, rag())
    for number in range(4):
        await events_of(runner, request(rag(), tenant="acme", run_id=f"run-{number}"))
    async with writing(log):
        await memory.ended()
        await memory.ended()
    assert [record.run_id for record in memory.written] == ["run-0", "run-1"]


MAPPED = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: mapped}
inputs: {questions: "list[string]"}
nodes:
  each:
    map:
      over: ${inputs.questions}
      as: q
      nodes:
        ask: {prompt: {template: "{{ q }}"}, with: {q: "${q}"}}
        answer:
          llm: {model: small, max_tokens: 4}
          with: {prompt: "${ask.text}"}
          fallback: [{value: none}]
      outputs: {text: "${answer.text}"}
outputs: {texts: "${each.text}"}
"""


async def test_nodes_inside_nodes_are_told_of_by_item() -> None:
    memory = Memory()
    log = RunLog(memory)
    failing = Rule(contains="bad", failure=Failure("EngineFailed", "it broke"))
    runner = runner_with(log, load(MAPPED).pipeline, FakeScript(rules=[failing]))
    inputs = {"questions": ["good", "bad"]}
    events = await events_of(
        runner, RunRequest("run-1", "mapped", inputs, time.time() + 30, tenant="acme", stream=True)
    )
    await log.flush()
    (record,) = memory.written
    nodes = {node.node: node for node in record.nodes}
    assert set(nodes) == {
        *("each", "each[0].ask", "each[0].answer"),
        *("each[1].ask", "each[1].answer"),
    }
    assert {node.status for node in record.nodes} == {"succeeded"}
    assert nodes["each[1].answer"].fell_back_to == "value"
    assert nodes["each[0].answer"].usage is not None
    told = {event.node: event.seconds for event in events if isinstance(event, NodeFinished)}
    assert {name: node.seconds for name, node in nodes.items()} == told
    whole = nodes["each"]
    for node in record.nodes:
        assert whole.started <= node.started
        assert node.started + node.seconds <= whole.started + whole.seconds + 0.2


async def test_the_record_of_a_run_that_others_began_covers_all_of_it(valkey_store: Store) -> None:
    journals, records = MemoryJournals(lease_s=0.0), RunStore(valkey_store)
    log = RunLog(records)
    plan, shelf = [compile_pipeline(rag())], {"manual": Shelf()}
    slow = Resources(pools(small=FakeScript(first_token_s=600)), shelf)
    first = Runner(plan, slow, RunLog(records), journals)
    await first.start(request(rag(), tenant="acme", durability="step"))
    while "vector" not in (await journals.read("acme", "run-1")).done:
        await asyncio.sleep(0)
    await Runner(plan, Resources(pools(), shelf), log, journals).take_up("acme", "run-1")
    async with aclosing(journals.follow("acme", "run-1")) as batches:
        events = [event async for batch in batches for _, event in batch]
    await log.flush()
    record = await records.load("acme", "run-1", time.time())
    assert record is not None
    assert (record.status, record.attempt, record.usage) == ("succeeded", 2, events[-1].usage)
    assert [node.node for node in record.nodes] == ["vector", "search", "ask", "answer"]
    assert {node.status for node in record.nodes} == {"succeeded"}


async def test_what_a_runner_says_that_lost_the_run_is_not_recorded(valkey_store: Store) -> None:
    records = RunStore(valkey_store)
    newer = RunRecord("r", "acme", "g", "1", "h", "succeeded", 1.0, 2.0, attempt=2)
    await records.write([newer])
    await records.write([msgspec.structs.replace(newer, status="running", attempt=1)])
    assert await records.load("acme", "r", 3.0) == newer
