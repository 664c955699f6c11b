"""The last known state of every part."""

from __future__ import annotations

import asyncio

import pytest

from serve_apps.gateway import readiness
from serve_apps.gateway.readiness import Readiness
from tests.serve_apps.conftest import eventually


async def yes() -> bool:
    return True


async def hangs() -> bool:
    await asyncio.Event().wait()
    return True


async def test_nothing_is_ready_before_it_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ASK_TIMEOUT_S", 0.01)
    parts = Readiness({"a": yes, "b": hangs})
    assert parts.waiting_for(["a", "b", "unknown"]) == ["a", "b", "unknown"]
    await parts.refresh()
    assert parts.states() == {"a": True, "b": False}
    assert parts.waiting_for(["a", "b"]) == ["b"]
    assert not parts.all_ready


async def test_watching_sees_a_part_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "POLL_STARTING_S", 0.001)
    monkeypatch.setattr(readiness, "POLL_READY_S", 0.001)
    monkeypatch.setattr(readiness, "LOST_AFTER_S", 0.0)
    state = False

    async def changing() -> bool:
        return state

    parts = Readiness({"a": changing})
    watching = asyncio.create_task(parts.watch())

    async def agrees() -> bool:
        return parts.ready("a") is state

    for state in (True, False, True):  # noqa: B007 - `changing` reads it
        await eventually(agrees)
    assert not watching.done()
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_part_that_was_ready_may_be_silent_for_a_while() -> None:
    """A busy pool, or one that is being redeployed, is not one that is starting."""
    answers = iter([False, True, False, False, False])
    now = 100.0

    async def answer() -> bool:
        return next(answers)

    parts = Readiness({"a": answer}, clock=lambda: now)
    seen = []
    for now in (100, 101, 102, 101 + readiness.LOST_AFTER_S, 102 + readiness.LOST_AFTER_S):  # noqa: B007
        await parts.refresh()
        seen.append(parts.ready("a"))
    assert seen == [False, True, True, True, False]
