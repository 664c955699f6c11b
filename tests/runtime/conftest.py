"""Tests that are marked `leaping` run on a loop whose time does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.runtime.leaping import LeapingLoop, unix_s


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"loop": LeapingLoop if item.get_closest_marker("leaping") else asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _leaping_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("leaping"):
        monkeypatch.setattr(time, "time", unix_s)
