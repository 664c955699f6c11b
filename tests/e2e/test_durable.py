"""Runs that outlive their clients and their runners, and requests that are sent twice."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, AT_LENGTH, COMMAND, REPOSITORY, RunningSystem

RUNS = "/v1/graphs/support-rag/runs"
LONG = {"question": f"Tell me of quotas {AT_LENGTH}."}
ANSWER = ("so " * 128).strip()

pytestmark = pytest.mark.parametrize("system", ["fake"], indirect=True)


@pytest.fixture
def client(system: RunningSystem) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {system.demo_key}"}
    with httpx.Client(base_url=system.url, headers=headers, timeout=ANSWER_TIMEOUT_S) as client:
        yield client


def _begin(client: httpx.Client, inputs: dict[str, Any]) -> str:
    body = {"inputs": inputs, "background": True, "durability": "step"}
    answer = client.post(RUNS, json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['run_id']}"
    run_id: str = answer.json()["run_id"]
    return run_id


def _events(client: httpx.Client, run_id: str, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    headers = {"last-event-id": str(after)}
    with client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as reply:
        assert reply.status_code == 200, reply.read()
        number = 0
        for line in reply.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                yield number, json.loads(line[6:])


def _until(client: httpx.Client, run_id: str, kind: str, node: str | None = None) -> int:
    """The number of the event, once it has happened."""
    for number, event in _events(client, run_id):
        if (event["type"], event.get("node")) == (kind, node):
            return number
    raise AssertionError(f"run {run_id} has told no {kind} of {node}")


def _record(client: httpx.Client, run_id: str, *statuses: str) -> dict[str, Any]:
    until = time.monotonic() + 200
    while time.monotonic() < until:
        record: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        if record.get("status") in statuses:
            return record
        time.sleep(0.05)
    raise AssertionError(f"run {run_id} is {record}")


def _command(system: RunningSystem, *arguments: str) -> str:
    environment = os.environ | {"CLUSTERGRAPH_URL": system.url, "CLUSTERGRAPH_KEY": system.demo_key}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_in_the_background_is_followed_from_any_event_on(
    system: RunningSystem, client: httpx.Client
) -> None:
    run_id = _begin(client, {"question": "How do I create an API key?"})
    events = list(_events(client, run_id))
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert (events[0][1]["type"], events[-1][1]["type"]) == ("run_started", "run_finished")
    assert list(_events(client, run_id, after=4)) == events[4:]
    shown = _command(system, "runs", "follow", run_id, "--after", "1")
    assert "run finished" in shown
    assert "run started" not in shown


def test_a_waiting_client_gets_its_answer_though_all_runners_are_killed(
    system: RunningSystem, client: httpx.Client
) -> None:
    key, record = system.key()
    client.headers["authorization"] = f"Bearer {key}"
    with ThreadPoolExecutor(1) as background:
        answering = background.submit(client.post, RUNS, json={"inputs": LONG, "durability": "step"})
        run_id = _first_run(client)
        _until(client, run_id, "node_called", "answer")
        runners = [each for each in system.processes() if "runner" in " ".join(each.cmdline()[:1])]
        assert len(runners) == system.settings.runner.replicas, [each.cmdline() for each in runners]
        for runner in runners:
            runner.kill()
        answer = answering.result(timeout=ANSWER_TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-run-id"] == run_id
    assert answer.json()["outputs"]["text"].strip() == ANSWER
    told = [event for _, event in _events(client, run_id)]
    assert [event["type"] for event in told].count("run_resumed") == 1
    searched = [event for event in told if (event["type"], event.get("node")) == ("node_finished", "vector")]
    assert len(searched) == 1
    assert _record(client, run_id, "succeeded")["attempt"] == 2
    usage = answer.json()["usage"]
    assert system.settled(record).tokens == usage["prompt_tokens"] + usage["completion_tokens"]


def _first_run(client: httpx.Client) -> str:
    """The id of the only run of a tenant."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        runs = client.get("/v1/runs").json()["data"]
        if runs:
            return str(runs[0]["run_id"])
        time.sleep(0.05)
    raise AssertionError("no run has begun")


def test_a_cancelled_run_is_resumed_where_it_was(system: RunningSystem, client: httpx.Client) -> None:
    run_id = _begin(client, LONG)
    _until(client, run_id, "node_called", "answer")
    assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 200
    _record(client, run_id, "cancelled")
    assert run_id in _command(system, "runs", "resume", run_id)
    record = _record(client, run_id, "succeeded")
    assert record["outputs"]["values"]["text"].strip() == ANSWER
    calls = [event["node"] for _, event in _events(client, run_id) if event["type"] == "node_called"]
    assert calls.count("vector") == 1
    assert calls.count("answer") == 2


def test_a_fork_has_the_edited_output_of_its_node(system: RunningSystem, client: httpx.Client) -> None:
    run_id = _begin(client, {"question": "How do I create an API key?"})
    _record(client, run_id, "succeeded")
    printed = _command(
        system, "runs", "fork", run_id, "--from", "answer", "--set", "answer.text=Ask an admin."
    )
    assert json.loads(printed)["text"] == "Ask an admin."
    kept = client.get(f"/v1/runs/{run_id}?outputs=true").json()["node_outputs"]["values"]
    assert kept["answer"]["text"] != "Ask an admin."


def test_a_request_that_is_sent_twice_is_done_once(system: RunningSystem) -> None:
    key, record = system.key()
    sdk = system.client(key)
    messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
    headers = {"Idempotency-Key": "e2e-1"}
    first, again = [
        sdk.chat.completions.create(model="smollm2", messages=messages, extra_headers=headers)
        for _ in range(2)
    ]
    assert first == again
    with pytest.raises(openai.UnprocessableEntityError, match="another request"):
        sdk.chat.completions.create(model="smollm2", messages=messages, n=2, extra_headers=headers)
    assert first.usage is not None
    totals = system.settled(record)
    assert (totals.requests, totals.tokens) == (1, first.usage.total_tokens)
