"""Runs of the shipped graph, looked at from outside: their records, their end, their drawing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import httpx
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, AT_LENGTH, COMMAND, REPOSITORY, RunningSystem

RUNS = "/v1/graphs/support-rag/runs"
PIPELINE = "graphs/library/support-rag.yaml"
ANSWER_TOKENS = 128
"""Of the graph's answer, at most."""


def _client(system: RunningSystem) -> httpx.Client:
    headers = {"authorization": f"Bearer {system.demo_key}"}
    return httpx.Client(base_url=system.url, headers=headers, timeout=ANSWER_TIMEOUT_S)


def _ended(client: httpx.Client, run_id: str) -> dict[str, Any]:
    """The record once the run has ended: it is written off the run's path."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = client.get(f"/v1/runs/{run_id}")
        if answer.status_code == 200 and answer.json()["status"] != "running":
            record: dict[str, Any] = answer.json()
            return record
        time.sleep(0.05)
    raise AssertionError(f"run {run_id} has no end: {answer.status_code} {answer.text}")


def _command(system: RunningSystem, *arguments: str) -> str:
    environment = os.environ | {
        "COLUMNS": "160",
        "CLUSTERGRAPH_URL": system.url,
        "CLUSTERGRAPH_KEY": system.demo_key,
    }
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_is_recorded_and_drawn(system: RunningSystem) -> None:
    with _client(system) as client:
        answer = client.post(RUNS, json={"inputs": {"question": "How do I create an API key?"}})
        run_id = answer.headers["x-run-id"]
        record = _ended(client, run_id)
        newest = client.get("/v1/runs?graph=support-rag&limit=1").json()["data"][0]
    assert (record["status"], record["run_id"], newest["run_id"]) == ("succeeded", run_id, run_id)
    nodes = {node["node"]: node for node in record["nodes"]}
    assert {"vector", "search", "answer"} <= nodes.keys()
    assert nodes["search"]["started"] >= nodes["vector"]["seconds"]
    assert nodes["answer"]["usage"]["completion_tokens"] == record["usage"]["completion_tokens"]
    drawn = _command(system, "draw", PIPELINE, "--run", run_id)
    assert "heat4" in drawn
    assert "took" in drawn
    shown = _command(system, "runs", "show", run_id)
    assert "succeeded" in shown
    assert all(name in shown for name in nodes)


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_a_run_is_cancelled_long_before_its_end(system: RunningSystem) -> None:
    """On the fake engine, whose answer is as long as the question asks for."""
    body = {"inputs": {"question": f"Tell me of quotas {AT_LENGTH}."}, "stream": True}
    with _client(system) as client, client.stream("POST", RUNS, json=body) as events:
        run_id = events.headers["x-run-id"]
        told = 0
        last: dict[str, Any] = {}
        for line in events.iter_lines():
            if not line.startswith("data: "):
                continue
            last = json.loads(line[6:])
            told += last["type"] == "node_delta"
            if told == 1 and last["type"] == "node_delta":
                with _client(system) as other:
                    cancelled = other.post(f"/v1/runs/{run_id}/cancel")
        assert cancelled.status_code == 200, cancelled.text
        assert (last["type"], last["failure"]["kind"]) == ("run_failed", "RunCancelled")
        record = _ended(client, run_id)
    assert told < 3 * ANSWER_TOKENS / 4
    assert record["status"] == "cancelled"


def test_another_tenant_sees_no_run(system: RunningSystem) -> None:
    token, _ = system.key()
    with _client(system) as client:
        run_id = client.post(RUNS, json={"inputs": {"question": "Why?"}}).headers["x-run-id"]
        _ended(client, run_id)
        client.headers["authorization"] = f"Bearer {token}"
        assert client.get(f"/v1/runs/{run_id}").status_code == 404
        assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 404
        assert client.get("/v1/runs").json()["data"] == []
