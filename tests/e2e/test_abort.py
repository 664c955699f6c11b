"""A client that leaves: the engine stops working for it, and its quota is settled for what it got."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serve_apps.gateway.limits import Limits
from tests.e2e.system import REPOSITORY, RunningSystem

LONG = [{"role": "user", "content": "Tell me a very long story about a lighthouse."}]


@contextmanager
def engine_watch(system: RunningSystem, model: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The engine's states as they change."""
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
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=300)


def test_leaving_a_stream_frees_the_engine_and_settles_the_quota(system: RunningSystem) -> None:
    key, record = system.key(limits=Limits(tokens_per_minute=10_000))
    with engine_watch(system, "smollm2") as states:
        before = next(states)
        stream = system.client(key).chat.completions.create(
            model="smollm2",
            messages=LONG,
            max_tokens=1500,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        got = 0
        for chunk in stream:
            got += bool(chunk.choices and chunk.choices[0].delta.content)
            if got == 4:
                break
        stream.close()
        idle = next(state for state in states if not state.get("running") and state.get("aborted"))
    assert idle["aborted"] == before.get("aborted", 0) + 1
    totals = system.settled(record)
    assert totals.reserved == 0
    assert totals.expired == 0
    assert 4 < totals.tokens < 1500
