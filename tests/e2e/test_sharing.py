"""Calls that runs of one tenant make at the same time, in whichever runner."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, AT_LENGTH, RunningSystem

CALLERS = 16
PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: told-once}
inputs: {topic: string}
nodes:
  tell:
    llm: {model: smollm2, max_tokens: 100, temperature: 0}
    with: {prompt: "${inputs.topic}"}
    cache: {ttl: 1h}
outputs: {text: "${tell.text}"}
"""


def _source(client: httpx.Client, run_id: str) -> str:
    """Where the outputs of its only node come from, once the run is written down."""
    until = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < until:
        record: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        if record.get("status") == "succeeded":
            (node,) = record["nodes"]
            return str(node.get("source", "node"))
        time.sleep(0.05)
    raise AssertionError(f"run {run_id} has no end: {record}")


def _tokens(answer: httpx.Response) -> int:
    """That the run owes; what is 0 is left out."""
    usage: dict[str, int] = answer.json()["usage"]
    return usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_runs_of_two_runners_have_a_call_made_once_and_pay_for_it_once(system: RunningSystem) -> None:
    assert system.settings.runner.replicas == 2
    key, record = system.key()
    headers = {"authorization": f"Bearer {key}"}
    body = {"pipeline": PIPELINE, "inputs": {"topic": f"Tell me of tides {AT_LENGTH}."}}
    with httpx.Client(base_url=system.url, headers=headers, timeout=ANSWER_TIMEOUT_S) as client:
        with ThreadPoolExecutor(CALLERS) as callers:
            answers = list(callers.map(lambda _: client.post("/v1/runs", json=body), range(CALLERS)))
        assert {answer.status_code for answer in answers} == {200}, answers[0].text
        assert {answer.json()["outputs"]["text"].strip() for answer in answers} == {("so " * 100).strip()}
        sources = [_source(client, answer.headers["x-run-id"]) for answer in answers]
    assert sources.count("node") == 1, sources
    assert set(sources) <= {"node", "shared", "cache"}
    assert "shared" in sources, "nobody came while the call was being made"
    *others, maker = sorted(map(_tokens, answers))
    assert others == [0] * (CALLERS - 1)
    assert system.settled(record).tokens == maker > 100
