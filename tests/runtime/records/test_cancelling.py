"""Runs that are ended from afar."""

import asyncio

import structlog

from cluster.engines.fake import FakeScript
from runtime.events import RunFailed
from runtime.records.cancelling import end_cancelled
from runtime.records.store import RunStore
from runtime.store.errors import StoreUnavailable
from tests.graphs.shapes import rag
from tests.runtime.parts import events_of, make_runner, pools, request


async def test_a_run_ends_when_the_store_says_so(valkey_store):
    records = RunStore(valkey_store)
    runner = make_runner(rag(), pools(small=FakeScript(first_token_s=60)))
    watch = asyncio.create_task(end_cancelled(runner, records, every_s=0.01))
    run = asyncio.create_task(events_of(runner, request(rag(), tenant="acme", run_id="run-1")))
    while not runner.running:
        await asyncio.sleep(0)
    await records.ask_to_cancel("rivals", "run-1")
    await records.ask_to_cancel("acme", "run-2")
    await asyncio.sleep(0.05)
    assert not run.done()
    await records.ask_to_cancel("acme", "run-1")
    last = (await run)[-1]
    assert isinstance(last, RunFailed)
    assert last.failure.kind == "RunCancelled"
    assert runner.running == []
    watch.cancel()
    await asyncio.wait([watch])


class Out:
    """A store that is out, twice; then nobody is asked to be cancelled."""

    def __init__(self):
        self.asked = 0

    async def asked_to_cancel(self, runs):
        self.asked += 1
        if self.asked <= 2:
            raise StoreUnavailable("it is out")
        return [("acme", "run-1")]


async def test_a_store_that_is_out_is_asked_again():
    runner = make_runner(rag(), pools(small=FakeScript(first_token_s=60)))
    with structlog.testing.capture_logs() as said:
        watch = asyncio.create_task(end_cancelled(runner, Out(), every_s=0.001))
        events = await events_of(runner, request(rag(), tenant="acme", run_id="run-1"))
        watch.cancel()
        await asyncio.wait([watch])
    assert events[-1].failure.kind == "RunCancelled"
    assert [line["event"] for line in said].count("cancelling_unavailable") == 1
