"""Events of runs as they are followed through the journal, past runners that die and a store that is out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import ReplicaLost
from cluster.messages import Usage
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import Numbered
from runtime.errors import UnknownRun
from runtime.events import NodeFinished, NodeStarted, RunEvent, RunFinished, RunResumed, RunStarted
from runtime.request import RunRequest
from runtime.store.errors import StoreUnavailable
from serve_apps.gateway import following
from serve_apps.gateway.following import follow, run_events
from serve_apps.gateway.metering import RunMeter

REQUEST = RunRequest("run-1", "rag", {}, deadline=2e9, tenant="acme", durability="step")
STARTED = RunStarted("run-1", "rag", "1", "hash")
DONE = NodeFinished("a", 0.1, Usage(2, 3))
END = RunFinished({"text": "so"}, Usage(4, 6), 1.0)


class Told:
    """Journals that tell scripted batches; an error in their place is raised."""

    def __init__(self, *connections: list[list[Numbered] | Exception]) -> None:
        self._connections = list(connections)
        self.asked: list[int] = []

    async def follow(self, tenant: str, run_id: str, after: int = 0) -> AsyncGenerator[list[Numbered], None]:
        self.asked.append(after)
        for each in self._connections.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each


class Dying:
    """A runner that tells some events and is lost, or stops telling."""

    def __init__(self, *events: RunEvent, lost: bool = True) -> None:
        self._events = events
        self._lost = lost

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        for event in self._events:
            yield [event]
        if self._lost:
            raise ReplicaLost("killed")


def gateway(runner: Dying, journals: Any) -> Any:
    return SimpleNamespace(runner=runner, journals=journals, runs=None)


async def told(gateway: Any, request: RunRequest = REQUEST) -> tuple[list[RunEvent], RunMeter]:
    meter = RunMeter()
    events: list[RunEvent] = []
    async with aclosing(run_events(gateway, request, meter)) as batches:
        async for batch in batches:
            events += batch
    return events, meter


async def test_a_store_that_is_out_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STORE_PAUSE_S", 0.0)
    one, two = [Numbered(1, STARTED)], [Numbered(2, END)]
    journals = Told([StoreUnavailable("out")], [one, StoreUnavailable("out")], [two])
    batches = [batch async for batch in follow(journals, "acme", "run-1")]  # type: ignore[arg-type]
    assert batches == [one, two]
    assert journals.asked == [0, 0, 1]


@pytest.mark.parametrize("lost", [True, False])
async def test_what_was_told_is_not_told_again(lost: bool) -> None:
    journals = Told([[Numbered(3, RunResumed("run-1", 2, 1)), Numbered(5, END)]])
    events, meter = await told(gateway(Dying(STARTED, DONE, lost=lost), journals))
    assert events == [STARTED, DONE, RunResumed("run-1", 2, 1), END]
    assert journals.asked == [2]
    assert (meter.owed, meter.usage) == (10, Usage(4, 6))


async def test_a_run_that_never_began_is_lost() -> None:
    with pytest.raises(ReplicaLost, match="killed"):
        await told(gateway(Dying(), Told([UnknownRun("nothing")])))


async def test_a_run_that_keeps_no_steps_is_lost() -> None:
    plain = RunRequest("run-1", "rag", {}, deadline=2e9, tenant="acme", durability="exit")
    with pytest.raises(ReplicaLost, match="killed"):
        await told(gateway(Dying(STARTED), MemoryJournals()), plain)


async def test_a_run_that_ends_is_not_followed() -> None:
    journals = Told()
    events, _ = await told(gateway(Dying(STARTED, NodeStarted("a", "llm"), END, lost=False), journals))
    assert events[-1] == END
    assert journals.asked == []
