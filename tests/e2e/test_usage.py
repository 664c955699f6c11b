"""What the report says was used is what the engine says that it did."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import httpx

from serve_apps.cli.calls import GatewayClient
from tests.e2e.system import ANSWER_TIMEOUT_S, COMMAND, RunningSystem
from tests.e2e.test_abort import engine_watch

FOLDED_WITHIN_S = 600.0
MODEL = "smollm2"


def reported(system: RunningSystem, key: str, requests: int, **asked: str) -> dict[str, dict[str, Any]]:
    """Rows by model, once so many requests are in them."""
    client = GatewayClient(system.url, key)
    until = time.monotonic() + FOLDED_WITHIN_S
    while True:
        rows = client.usage({"group_by": "model", **asked}).data
        if sum(row.requests for row in rows) >= requests or time.monotonic() > until:
            return {row.group["model"]: row for row in rows}  # type: ignore[misc]
        time.sleep(0.2)


def state(system: RunningSystem) -> dict[str, Any]:
    """Of the engine, at rest."""
    with engine_watch(system, MODEL) as states:
        return next(each for each in states if not each.get("running"))


def test_the_report_agrees_with_the_engine(system: RunningSystem) -> None:
    key, record = system.key()
    client = system.client(key)
    before = state(system)
    question = [{"role": "user", "content": "Say something about the weather, and about the sea. " * 8}]
    for number in range(3):
        chat: Any = {"model": MODEL, "messages": question, "max_tokens": 6 + number}
        if number == 1:
            assert list(client.chat.completions.create(**chat, stream=True, metadata={"step": "streamed"}))
        else:
            client.chat.completions.create(**chat)
    headers = {"authorization": f"Bearer {key}"}
    run = httpx.post(
        f"{system.url}/v1/graphs/support-rag/runs",
        json={"inputs": {"question": "What is a key?"}},
        headers=headers,
        timeout=ANSWER_TIMEOUT_S,
    )
    assert run.status_code == 200, run.text
    totals = system.settled(record)
    rows: Any = reported(system, key, requests=4)
    after = state(system)

    def done(field: str) -> int:
        return int(after.get(field, 0)) - int(before.get(field, 0))

    small = rows[MODEL]
    assert small.input_tokens == done("prompt_tokens") > 0
    assert small.output_tokens == done("completion_tokens") > 0
    assert abs(small.engine_seconds * 10**9 - done("busy_ns")) < 1000
    assert sum(row.input_tokens + row.output_tokens for row in rows.values()) == totals.tokens
    assert sum(row.requests for row in rows.values()) == totals.requests == 4
    if system.kind == "quickstart":
        assert small.cached_tokens > 0, "the same prompt was read three times"
    tagged: Any = reported(system, key, 1, **{"tag.step": "streamed"})
    assert tagged[MODEL].requests == 1


def test_the_command_shows_what_the_key_sees(system: RunningSystem) -> None:
    key, _ = system.key()
    system.client(key).embeddings.create(model="minilm", input="one two three")
    reported(system, key, requests=1)
    command = [*COMMAND, "usage", "--url", system.url, "--key", key, "--by", "model", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    [row] = json.loads(shown.stdout)["data"]
    assert (row["group"], row["requests"]) == ({"model": "minilm"}, 1)
    assert row["input_tokens"] > 0
