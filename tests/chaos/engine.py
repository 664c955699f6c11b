"""The state of an engine inside the system, as it changes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.system import REPOSITORY, RunningSystem


class EngineStates:
    """Every state that was seen, each with the time `at` which it was: Unix seconds, to a fiftieth."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    @property
    def now(self) -> dict[str, Any]:
        return {"running": 0, "completed": 0, "aborted": 0, **(self.seen[-1] if self.seen else {})}

    def read(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.seen.append(json.loads(line))


@contextmanager
def engine_states(system: RunningSystem, model: str) -> Iterator[EngineStates]:
    """Of a model of one replica."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.engine_status", model],
        cwd=REPOSITORY,
        env=system.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    states = EngineStates()
    reader = threading.Thread(target=states.read, args=(process.stdout,))
    reader.start()
    try:
        end = time.monotonic() + 60
        while not states.seen:
            assert time.monotonic() < end, "the engine tells nothing"
            time.sleep(0.05)
        yield states
    finally:
        process.kill()  # leaving Ray in order may take it half a minute
        process.wait(timeout=30)
        reader.join()
        process.stdin.close()
        process.stdout.close()
