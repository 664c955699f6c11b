"""Runs that go on by themselves: what is reserved for them, and when it is settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.errors import Overloaded, ReplicaLost
from cluster.messages import Usage
from runtime.compiler.compile import compile_pipeline
from runtime.durability.journal import Journal
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import Numbered
from runtime.errors import RunHeld
from runtime.events import NodeCalled, NodeFinished, RunEvent, RunFinished, RunStarted, RunSuspended
from runtime.request import RunRequest
from runtime.store.client import Store
from runtime.store.errors import CommandFailed
from serve_apps.gateway.admission import Admission
from serve_apps.gateway.background import Begun, begin, so_far
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Attending, Request
from serve_apps.gateway.metering import RunMeter
from serve_apps.gateway.quotas import QuotaLedger, Totals
from tests.graphs.shapes import rag
from tests.serve_apps.conftest import eventually

KEY = Caller("acme", "k1")
ASKED = RunRequest("run-1", "rag", {}, deadline=2e9, tenant="acme", durability="step", background=True)
PLAN = compile_pipeline(rag())
BEGUN: list[RunEvent] = [RunStarted("run-1", "rag", "1", "h"), NodeFinished("a", 0.1, Usage(2, 3))]


class Desk:
    """The parts of a gateway that are at work here."""

    def __init__(self, store: Store) -> None:
        self.ledger = QuotaLedger(store)
        self.journals = MemoryJournals()
        self.journal: Journal | None = None
        self.decided = False
        self.gateway: Any = SimpleNamespace(
            admission=Admission(self.ledger),
            attending=Attending(),
            journals=self.journals,
            prices={},
            clock=time.time,
            approvals=SimpleNamespace(any_decided=self.any_decided),
            runner=SimpleNamespace(resume=self.resume),
        )
        self.exchange: Any = SimpleNamespace(
            id="call-1",
            shown_id=b"call-1",
            path="/v1/graphs/letter/runs",
            headers={},
            tags={},
            marks={},
            seconds=30.0,
            deadline=time.time() + 30.0,
            added_headers=[],
            spent=False,
        )

    async def begin(self, start: Callable[[], Awaitable[None]], run: Begun | None = None) -> None:
        request = Request(self.gateway, self.exchange, KEY)
        await begin(request, run or Begun("acme", "run-1"), Demand("m", 100, 0, seconds=30.0), start)

    async def start(self) -> None:
        self.journal = await self.journals.begin(ASKED, PLAN)
        await self.journal.append(BEGUN, [])

    async def any_decided(self, tenant: str, run_id: str, nodes: list[str]) -> bool:
        assert (tenant, run_id, nodes) == ("acme", "run-1", ["ask"])
        return self.decided

    async def resume(self, tenant: str, run_id: str) -> None:
        self.journal = (await self.journals.take(tenant, run_id, deadline=2e9)).journal

    async def tell(self, *events: RunEvent) -> None:
        assert self.journal is not None
        await self.journal.append(events, [])

    async def totals(self) -> Totals:
        return await self.ledger.totals(KEY.tenant, KEY.id)

    async def settled(self) -> Totals:
        async def closed() -> bool:
            return not (await self.totals()).open

        await eventually(closed)
        return await self.totals()


@pytest.fixture
def desk(one_store: Store) -> Desk:
    return Desk(one_store)


async def test_a_run_is_settled_when_it_ends(desk: Desk) -> None:
    await desk.begin(desk.start)
    assert desk.exchange.spent
    assert (await desk.totals()).reserved == 100
    await desk.tell(NodeCalled("b", "small", 4), RunFinished({}, Usage(7, 8), 1.0))
    assert (await desk.settled()).tokens == 15


async def test_a_suspended_run_is_settled_and_the_rest_by_whoever_resumes_it(desk: Desk) -> None:
    await desk.begin(desk.start)
    await desk.tell(RunSuspended(["ask"], Usage(2, 3), 1.0))
    assert (await desk.settled()).tokens == 5
    run = await so_far(desk.journals, "acme", "run-1")
    assert run.before is not None
    assert (run.after, run.before.owed) == (3, 5)

    desk.exchange.id = "call-2"
    await desk.begin(partial(desk.resume, "acme", "run-1"), run)
    await desk.tell(RunFinished({}, Usage(7, 8), 1.0))
    assert (await desk.settled()).tokens == 15


async def test_a_decision_that_nobody_saw_resumes_the_run_and_the_rest_is_settled(desk: Desk) -> None:
    desk.decided = True
    await desk.begin(desk.start)
    before = desk.journal
    await desk.tell(RunSuspended(["ask"], Usage(2, 3), 1.0))

    async def resumed() -> bool:
        return desk.journal is not before

    await eventually(resumed)
    await desk.tell(RunFinished({}, Usage(7, 8), 1.0))
    totals = await desk.settled()
    assert (totals.requests, totals.tokens) == (1, 15)


async def test_where_whoever_decided_was_faster_they_settle_the_rest(desk: Desk) -> None:
    async def held(_tenant: str, _run_id: str) -> None:
        raise RunHeld("somebody drives it")

    desk.decided, desk.gateway.runner.resume = True, held
    await desk.begin(desk.start)
    await desk.tell(RunSuspended(["ask"], Usage(2, 3), 1.0))
    assert (await desk.settled()).tokens == 5


async def test_a_run_that_does_not_begin_costs_nothing(desk: Desk) -> None:
    async def start() -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await desk.begin(start)
    assert not desk.exchange.spent
    assert await desk.settled() == Totals()


async def test_where_the_runner_died_the_journal_knows_whether_the_run_has_begun(desk: Desk) -> None:
    async def start_and_die() -> None:
        await desk.start()
        raise ReplicaLost("killed")

    async def die() -> None:
        raise ReplicaLost("killed")

    with pytest.raises(ReplicaLost):
        await desk.begin(die)
    assert await desk.settled() == Totals()
    await desk.begin(start_and_die)
    await desk.tell(RunFinished({}, Usage(7, 8), 1.0))
    assert (await desk.settled()).tokens == 15


async def test_a_gateway_that_stops_settles_what_is_owed_so_far(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = asyncio.Event()
    count = RunMeter.count

    def counting(meter: RunMeter, events: Iterable[RunEvent]) -> None:
        count(meter, events)
        if meter.owed:
            counted.set()

    monkeypatch.setattr(RunMeter, "count", counting)
    await desk.begin(desk.start)
    await counted.wait()
    await desk.gateway.attending.stop()
    assert (await desk.settled()).tokens == 5


async def test_a_run_whose_journal_cannot_be_read_is_settled_as_far_as_it_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> AsyncGenerator[list[Numbered], None]:
        yield [Numbered(number, event) for number, event in enumerate(BEGUN, 1)]
        raise CommandFailed("out of order")

    monkeypatch.setattr(desk.journals, "follow", broken)
    with capture_logs() as logged:
        await desk.begin(desk.start)
        assert (await desk.settled()).tokens == 5
    assert (logged[0]["event"], logged[0]["error"]) == ("run_without_end", "CommandFailed")
