"""What Ray Serve says of the replicas of a system, and how a test ends one of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from serve_apps.cli.environment import ray_token_file
from tests.e2e.system import RunningSystem

APPLICATIONS = "http://127.0.0.1:8265/api/serve/applications/"
BACK_WITHIN_S = 120.0
LOOK_EVERY_S = 0.1


class Replica(NamedTuple):
    """One process of a deployment."""

    id: str
    pid: int
    state: str


class Cluster:
    """The one application of a system, as its dashboard shows it."""

    def __init__(self, system: RunningSystem) -> None:
        token = ray_token_file(system.settings.data_dir).read_text()
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30)

    def close(self) -> None:
        self._client.close()

    def application(self) -> dict[str, Any]:
        answer = self._client.get(APPLICATIONS)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["applications"]["default"]
        return found

    def answers(self) -> bool:
        """Whether there is a controller to ask."""
        try:
            return bool(self.application()["deployments"])
        except (httpx.HTTPError, KeyError):
            return False

    def replicas(self, deployment: str) -> list[Replica]:
        """Those that are there, whatever they do."""
        listed = self.application()["deployments"][deployment]["replicas"]
        return [Replica(each["replica_id"], each.get("pid") or 0, each["state"]) for each in listed]

    def running(self, deployment: str) -> list[Replica]:
        return [replica for replica in self.replicas(deployment) if replica.state == "RUNNING"]

    def kill(self, replica: Replica) -> None:
        """kill -9."""
        os.kill(replica.pid, signal.SIGKILL)

    def until_whole(self, deployment: str, count: int, without: str = "") -> list[Replica]:
        """The replicas, once `count` of them run and that of the id `without` is gone."""

        def whole() -> bool:
            nonlocal found
            found = self.replicas(deployment)
            running = [replica for replica in found if replica.state == "RUNNING"]
            return len(running) == len(found) == count and without not in {each.id for each in found}

        found: list[Replica] = []
        until(whole, f"{count} replicas of {deployment}")
        return found


def until(holds: Callable[[], bool], what: str, within_s: float = BACK_WITHIN_S) -> None:
    """Waits. Fails the test, saying what it waited for, when it takes too long."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"waited {within_s:.0f} s for {what}"
        time.sleep(LOOK_EVERY_S)
