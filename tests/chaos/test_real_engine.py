"""Rows that hang on what an engine does, a few times on the real one."""

from __future__ import annotations

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.figures import times
from tests.chaos.test_disconnects import clients_leave
from tests.chaos.test_runner_killed import runners_killed
from tests.e2e.system import RunningSystem

pytestmark = pytest.mark.parametrize("system", ["vllm"], indirect=True)
WAVES = 5
KILLS = 3


@pytest.mark.parametrize("name", ["streamed chats", "whole chats"])
def test_clients_that_leave(system: RunningSystem, name: str) -> None:
    clients_leave(system, name, times(WAVES), engine="vLLM")


def test_a_runner_that_is_killed(system: RunningSystem, cluster: Cluster) -> None:
    told = runners_killed(system, cluster, times(KILLS), engine="vLLM")
    assert all(run.events[-1]["outputs"]["text"] for run in told)
