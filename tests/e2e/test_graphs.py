"""The shipped graph: as a run, as a stream of events, and as a model."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, RunningSystem

QUESTION = "How do I create an API key?"


def _post(system: RunningSystem, body: dict[str, object]) -> httpx.Response:
    headers = {"authorization": f"Bearer {system.demo_key}"}
    return httpx.post(
        f"{system.url}/v1/graphs/support-rag/runs", json=body, headers=headers, timeout=ANSWER_TIMEOUT_S
    )


def test_a_run_answers_from_the_manual(system: RunningSystem) -> None:
    reply = _post(system, {"inputs": {"question": QUESTION}})
    assert reply.status_code == 200, reply.text
    run = reply.json()
    assert run["outputs"]["text"].strip()
    assert any("key" in source["text"].lower() for source in run["outputs"]["sources"])
    assert run["usage"]["completion_tokens"] > 0


def test_a_streamed_run_tells_of_its_nodes_and_tokens(system: RunningSystem) -> None:
    reply = _post(system, {"inputs": {"question": QUESTION}, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_finished"
    finished = [event["node"] for event in events if event["type"] == "node_finished"]
    assert finished.index("search") < finished.index("answer")
    text = "".join(event["text"] for event in events if event["type"] == "node_delta")
    assert text.strip() == events[-1]["outputs"]["text"].strip()


@pytest.mark.parametrize("stream", [False, True])
def test_the_graph_is_a_model(system: RunningSystem, stream: bool) -> None:
    arguments = {"model": "graph/support-rag", "messages": [{"role": "user", "content": QUESTION}]}
    client = system.client()
    if not stream:
        whole = client.chat.completions.create(**arguments)  # type: ignore[call-overload]
        assert whole.choices[0].message.content
        assert whole.usage.total_tokens > 0
        return
    pieces = [
        chunk.choices[0].delta.content
        for chunk in client.chat.completions.create(**arguments, stream=True)  # type: ignore[call-overload]
        if chunk.choices and chunk.choices[0].delta.content
    ]
    assert len(pieces) > 1


def test_wrong_inputs_are_named(system: RunningSystem) -> None:
    reply = _post(system, {"inputs": {"qestion": QUESTION}})
    assert reply.status_code == 422
    message = reply.json()["error"]["message"]
    assert "qestion" in message
    assert "question" in message
