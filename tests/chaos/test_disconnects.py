"""Row 2: clients that leave in mid-answer.

The engine stops working for them within a second, and their quota holds nothing any more. They leave streams
and answers in one piece, of chats and of runs: of a run, the calls of all its nodes.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, NamedTuple

import pytest

from tests.chaos.client import CHAT, chat, client, post, stream
from tests.chaos.engine import EngineStates, engine_states
from tests.chaos.figures import on, percentile, report, times
from tests.e2e.system import RunningSystem

DISCONNECTS = 1000
AT_ONCE = 20
WITHIN_S = 1.0
GIVE_UP_S = 20.0
MODEL = "solo"
FAN = "/v1/graphs/fan/runs"
CALLS_OF_A_RUN = 3
LONG = chat("Tell me of lighthouses at great length", max_tokens=1000, ignore_eos=True) | {"model": MODEL}
RUN: dict[str, Any] = {"inputs": {"subjects": ["tides", "gulls", "fog"]}}


class Kind(NamedTuple):
    """A way to ask, of which a client may tire."""

    path: str
    body: dict[str, Any]
    streamed: bool
    calls: int


KINDS = {
    "streamed chats": Kind(CHAT, LONG, True, 1),
    "whole chats": Kind(CHAT, LONG, False, 1),
    "streamed runs": Kind(FAN, RUN, True, CALLS_OF_A_RUN),
    "whole runs": Kind(FAN, RUN, False, CALLS_OF_A_RUN),
}


async def _leave(system: RunningSystem, key: str, kind: Kind, states: EngineStates) -> list[float]:
    """Seconds from the leaving of `AT_ONCE` clients to the end of each of their calls in the engine."""
    calls = AT_ONCE * kind.calls
    before = states.now
    async with client(system, key) as http:
        ask = stream if kind.streamed else post
        asking = [asyncio.create_task(ask(http, kind.path, kind.body)) for _ in range(AT_ONCE)]
        await _until(lambda: states.now["running"] >= calls, f"{calls} calls in the engine")
        left = time.time()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await _until(lambda: states.now["running"] == 0, "the engine to be idle")
    assert states.now["aborted"] - before["aborted"] == calls
    assert states.now["completed"] == before["completed"]
    return _ends(states, left, before["aborted"])


def _ends(states: EngineStates, left: float, aborted: int) -> list[float]:
    took: list[float] = []
    for state in states.seen:
        new = state.get("aborted", 0) - aborted - len(took)
        took += [max(0.0, state["at"] - left)] * max(0, new)
    return took


async def _until(holds: Any, what: str) -> None:
    end = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < end, f"waited {GIVE_UP_S:.0f} s for {what}"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", KINDS)
def test_clients_that_leave(system: RunningSystem, name: str) -> None:
    clients_leave(system, name, times(math.ceil(DISCONNECTS / len(KINDS) / AT_ONCE)))


def clients_leave(system: RunningSystem, name: str, waves: int, engine: str = "fake") -> None:
    key, record = system.key()
    took: list[float] = []
    with engine_states(system, MODEL) as states:
        for _ in range(waves):
            took += asyncio.run(_leave(system, key, KINDS[name], states))
    totals = system.settled(record)
    report(
        2,
        f"clients that leave {name}" + on(engine),
        disconnects=waves * AT_ONCE,
        calls=len(took),
        abort_s_p50=percentile(took, 0.5),
        abort_s_p99=percentile(took, 0.99),
        abort_s_max=max(took),
        tokens_held=totals.reserved,
        reservations_open=totals.open,
        reservations_expired=totals.expired,
    )
    assert percentile(took, 0.99) < WITHIN_S
    assert (totals.reserved, totals.open, totals.expired) == (0, 0, 0)
    assert totals.tokens > 0
