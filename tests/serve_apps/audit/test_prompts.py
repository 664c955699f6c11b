"""Nothing logs what people ask, nor the keys they ask with: looked for in all that is logged and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure
from runtime.store.client import Store
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import CHAT, EMBED, Start

CANARY = "canary-7c19e2"
RULES = [
    Rule(
        contains="break", reply="half", failure=Failure("EngineFailed", f"broke at {CANARY}"), failure_after=1
    ),
    Rule(contains="", reply=f"you said {CANARY}"),
]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """All that any logger says, and what is printed, once the test's calls are done."""
    told: list[str] = []
    caplog.set_level(logging.DEBUG)
    with capture_logs() as lines:
        yield told
        told += [repr(lines), caplog.text, *capfd.readouterr()]
    assert "request_failed" in [line["event"] for line in lines]  # so what is logged is seen here
    assert not [text for text in told if CANARY in text]


async def test_no_call_leaves_its_prompt_in_a_log_or_in_the_store(
    start: Start, one_store: Store, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await start(FakeScript(rules=RULES))
    said = {"messages": [{"role": "user", "content": CANARY}], "model": CHAT}
    broken = {**said, "messages": [{"role": "user", "content": f"break {CANARY}"}]}
    calls = [
        ("/v1/chat/completions", said, 200),
        ("/v1/chat/completions", {**said, "stream": True}, 200),
        ("/v1/completions", {"model": CHAT, "prompt": CANARY}, 200),
        ("/v1/embeddings", {"model": EMBED, "input": CANARY}, 200),
        ("/v1/responses", {"model": CHAT, "input": CANARY, "store": False}, 200),
        ("/v1/chat/completions", broken, 503),
        ("/v1/chat/completions", {**said, "max_tokens": 10**6}, 400),
        ("/v1/chat/completions", {**said, "messages": [{"role": CANARY, "content": "x"}]}, 400),
    ]
    for path, body, status in calls:
        answer = await site.http.post(path, json=body)
        assert answer.status_code == status, (path, answer.text)
    for streamed in (False, True):
        message = {"model": CHAT, "max_tokens": 16, "system": CANARY, "stream": streamed}
        for text, status in ((CANARY, 200), (f"break {CANARY}", 200 if streamed else 503)):
            body = {**message, "messages": [{"role": "user", "content": text}]}
            answer = await site.http.post("/v1/messages", json=body)
            assert answer.status_code == status, answer.text
    counted = {"model": CHAT, "messages": [{"role": "user", "content": CANARY}]}
    assert (await site.http.post("/v1/messages/count_tokens", json=counted)).status_code == 200
    stranger = await site.http.post(
        "/v1/chat/completions", json=said, headers={"authorization": f"Bearer {CANARY}"}
    )
    assert stranger.status_code == 401

    async def fails(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(site.deps.contexts, "load", fails)
    assert (await site.http.get("/v1/contexts/c-1")).status_code == 500
    await site.settled()
    kept = [await one_store.execute("DUMP", key) for key in await one_store.execute("KEYS", "*")]
    secret = site.token.split("_")[2]
    assert len(kept) > 3
    assert not [value for value in kept if CANARY.encode() in value or secret.encode() in value]


async def test_no_run_of_a_graph_leaves_its_inputs_in_a_log(start: Start, logged: list[str]) -> None:
    """Nor do its outputs, an input that is refused, a node that fails, a task or a chat with a graph."""
    site = await start_helper(start, FakeScript(rules=RULES), tasks={"kind-answers": "helper"})
    fields = {"model": "graph/helper", "messages": [{"role": "user", "content": CANARY}]}
    runs = "/v1/graphs/helper/runs"
    calls: list[tuple[str, dict[str, Any], set[int]]] = [
        (runs, {"inputs": {"question": CANARY}}, {200}),
        (runs, {"inputs": {"question": CANARY}, "stream": True}, {200}),
        (runs, {"inputs": {"question": f"break {CANARY}"}}, {500, 503}),
        (runs, {"inputs": {"question": f"break {CANARY}"}, "stream": True}, {200}),
        (runs, {"inputs": {"question": CANARY * 30}}, {422}),
        (runs, {"inputs": {"question": "x", CANARY: 1}}, {422}),
        ("/ai/kind-answers", {"question": CANARY}, {200}),
        ("/v1/chat/completions", fields, {200}),
        ("/v1/messages", {**fields, "max_tokens": 16, "stream": True}, {200}),
        ("/v1/messages", {**fields, "max_tokens": 16}, {200}),
        ("/v1/responses", {"model": "graph/helper", "input": CANARY, "store": False}, {200}),
    ]
    for path, body, statuses in calls:
        answer = await site.http.post(path, json=body)
        assert answer.status_code in statuses, (path, answer.text)

    async def fails(*_: object) -> None:
        raise ValueError(CANARY)

    site.deps.contexts.load = fails  # type: ignore[method-assign]
    assert (await site.http.get("/v1/contexts/c-1")).status_code == 500
    await site.settled()
