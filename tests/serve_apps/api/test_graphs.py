"""Graphs over HTTP: as runs, as chat models, in conversations; on the real runner over the fake engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.loader import load
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.durability.model import Checkpoint
from runtime.events import (
    NodeFailed,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    RunEvent,
    RunFailed,
    RunFinished,
    RunStarted,
)
from runtime.executor.kinds.kind import Resources
from runtime.request import RunRequest
from runtime.runner import ChatBinding, GraphInfo, Runner
from serve_apps.gateway.limits import Limits
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool, eventually

PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata:
  name: helper
  version: 1.2.0
  description: Answers kindly
inputs:
  question: {type: string, minLength: 1, maxLength: 60}
  tone: {type: string, default: kind}
context:
  reads: [sessionHistory]
nodes:
  ask:
    prompt:
      template: "{% for turn in history %}{{ turn.content }} {% endfor %}{{ tone }}: {{ question }}"
    with:
      history: ${context.sessionHistory}
      question: ${inputs.question}
      tone: ${inputs.tone}
  answer:
    llm: {model: tiny-chat, max_tokens: 20, max_prompt_tokens: 100, temperature: 0, stream: true}
    with:
      prompt: ${ask.text}
outputs:
  text: ${answer.text}
chat:
  input: question
  output: text
"""
SCRIPT = FakeScript(
    rules=[
        Rule(
            contains="break",
            reply="half an answer",
            failure=Failure("EngineFailed", "secret"),
            failure_after=2,
        ),
        Rule(contains="refuse", failure=Failure("InvalidCall", "not that")),
        Rule(contains="Paris", reply="You said Paris."),
        Rule(contains="", reply="In a kind way: yes."),
    ]
)


class InProcess:
    """A runner in this process, with the gateway's side of it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        async with aclosing(self._runner.run(request)) as events:
            async for event in events:
                yield [event]

    async def start(self, request: RunRequest, done: Sequence[Checkpoint] = ()) -> None:
        await self._runner.start(request, done)

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        await self._runner.resume(tenant, run_id, deadline)

    async def ready(self) -> bool:
        return True


class Scripted:
    """A runner that tells the events it is given, then maybe waits for ever."""

    def __init__(self, *events: RunEvent, stay: bool = False) -> None:
        self._events = events
        self._stay = stay
        self.closed = False

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        try:
            yield list(self._events)
            if self._stay:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    async def ready(self) -> bool:
        return True


def info(chat: bool = True) -> GraphInfo:
    inputs = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}
    binding = ChatBinding("question", "text") if chat else None
    return GraphInfo("scripted", "1", "", inputs, {}, "hash", 100, [CHAT], False, binding)


async def start_helper(
    start: Start, script: FakeScript = SCRIPT, pipeline: str = PIPELINE, **options: Any
) -> Site:
    engine = FakeEngine(script)
    pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
    catalog = Catalog(models={name: pool.info for name, pool in pools.items()}, indexes={})
    runner = Runner([compile_pipeline(load(pipeline).pipeline, catalog)], Resources(pools))
    site = await start(pools=pools, graphs=runner.infos, runner=InProcess(runner), **options)
    site.engine = engine
    return site


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The server-sent events of a run."""
    events = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


async def run(site: Site, inputs: dict[str, Any], **body: Any) -> httpx.Response:
    return await site.http.post("/v1/graphs/helper/runs", json={"inputs": inputs, **body})


async def test_run(start: Start) -> None:
    site = await start_helper(start)
    response = await run(site, {"question": "may I?"})
    assert response.status_code == 200
    answer = response.json()
    assert answer["outputs"] == {"text": "In a kind way: yes."}
    assert (answer["graph"], answer["version"], answer["status"]) == ("helper", "1.2.0", "succeeded")
    assert answer["run_id"] == response.headers["x-run-id"]
    assert [node["node"] for node in answer["nodes"]][-1] == "answer"
    assert answer["nodes"][-1]["kind"] == "llm"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert (await site.settled()).tokens == usage["prompt_tokens"] + 5


async def test_a_run_tells_of_its_nodes_by_their_paths(start: Start) -> None:
    events = [
        NodeStarted("all", "map"),
        NodeStarted("all[0].each", "llm"),
        NodeFinished("all[0].each", 0.5, Usage(3, 2)),
        NodeFinished("all", 0.75),
        NodeSkipped("extra", "value", "its condition does not hold"),
        *(NodeFinished(f"more[{index}].each", 0.5) for index in range(1_000)),
        RunFinished({"text": "so"}, Usage(3, 2), 1.0),
    ]
    site = await start(graphs={"scripted": info()}, runner=Scripted(*events))
    response = await site.http.post("/v1/graphs/scripted/runs", json={"inputs": {"question": "why"}})
    answer = response.json()
    used = {"type": "usage", "prompt_tokens": 3, "completion_tokens": 2}
    assert answer["nodes"][:3] == [
        {"node": "all[0].each", "kind": "llm", "status": "succeeded", "seconds": 0.5, "usage": used},
        {"node": "all", "kind": "map", "status": "succeeded", "seconds": 0.75},
        {
            "node": "extra",
            "kind": "value",
            "status": "skipped",
            "seconds": 0.0,
            "reason": "its condition does not hold",
        },
    ]
    assert (len(answer["nodes"]), answer["nodes_left_out"]) == (1_000, 3)


async def test_a_streamed_run_tells_of_retries_and_of_nodes_inside_others(start: Start) -> None:
    events = [
        NodeFailed("all[0].each", Failure("EngineFailed", "secret")),
        NodeRetried("all", 2, "error"),
        NodeFellBack("all[0].each", "model tiny", "error"),
        RunFinished({"text": "so"}, Usage(3, 2), 1.0),
    ]
    site = await start(graphs={"scripted": info()}, runner=Scripted(*events))
    body = {"inputs": {"question": "why"}, "stream": True}
    response = await site.http.post("/v1/graphs/scripted/runs", json=body)
    assert "secret" not in response.text
    told = [(name, data["node"]) for name, data in events_of(response.text)[:3]]
    assert told == [
        ("node_failed", "all[0].each"),
        ("node_retried", "all"),
        ("node_fell_back", "all[0].each"),
    ]


@pytest.mark.parametrize("ask", [{"json": {"stream": True}}, {"headers": {"accept": "text/event-stream"}}])
async def test_streamed_run(start: Start, ask: dict[str, Any]) -> None:
    site = await start_helper(start)
    body = {"inputs": {"question": "may I?"}, **ask.get("json", {})}
    response = await site.http.post("/v1/graphs/helper/runs", json=body, headers=ask.get("headers"))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names[0] == "run_started"
    assert names[-1] == "run_finished"
    assert {"node_started", "node_called", "node_delta", "node_finished"} <= set(names)
    assert "".join(data["text"] for name, data in events if name == "node_delta") == "In a kind way: yes."
    assert all(data["type"] == name for name, data in events)
    assert events[-1][1]["outputs"] == {"text": "In a kind way: yes."}


async def test_a_streamed_run_tells_what_is_skipped(start: Start) -> None:
    node = "  extra:\n    value: ${inputs.tone}\n    when: inputs.tone == 'rude'\noutputs:\n"
    output = "  extra: {from: '${extra.value}', optional: true}\n"
    site = await start_helper(start, pipeline=PIPELINE.replace("outputs:\n", node + output))
    response = await run(site, {"question": "may I?"}, stream=True)
    (skipped,) = [data for name, data in events_of(response.text) if name == "node_skipped"]
    assert skipped == {
        "type": "node_skipped",
        "node": "extra",
        "kind": "value",
        "reason": "its condition does not hold",
    }


async def test_inputs_that_do_not_fit_name_every_field(start: Start) -> None:
    site = await start_helper(start)
    response = await run(site, {"question": "x" * 100, "ton": "kind", "tone": 3})
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert all(field in message for field in ("question", "tone", "did you mean tone"))
    assert (await run(site, {})).status_code == 422
    missing = await site.http.post("/v1/graphs/helper/runs", json={})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "inputs")
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    assert (await run(site, {"question": deep})).status_code == 400
    assert (await site.totals()).requests == 0


async def test_unknown_graph(start: Start) -> None:
    site = await start_helper(start)
    response = await site.http.post("/v1/graphs/helpr/runs", json={"inputs": {}})
    assert response.status_code == 404
    assert "graph/helper" in response.json()["error"]["message"]
    assert (await site.http.get("/v1/graphs/helpr")).status_code == 404
    with pytest.raises(openai.NotFoundError):
        await site.sdk.chat.completions.create(
            model="graph/helpr", messages=[{"role": "user", "content": "hi"}]
        )


async def test_keys_may_be_kept_from_graphs(start: Start) -> None:
    site = await start_helper(start, models=[CHAT])
    assert (await run(site, {"question": "may I?"})).status_code == 403
    assert (await site.http.get("/v1/graphs")).json()["data"] == []
    assert (await site.http.get("/v1/graphs/helper")).status_code == 403
    allowed = await start_helper(start, models=["graph/helper"])
    assert (await run(allowed, {"question": "may I?"})).status_code == 200


async def test_graphs_are_described(start: Start) -> None:
    site = await start_helper(start)
    listed = (await site.http.get("/v1/graphs")).json()
    assert [graph["name"] for graph in listed["data"]] == ["helper"]
    one = (await site.http.get("/v1/graphs/helper")).json()
    assert one == listed["data"][0]
    assert one["model"] == "graph/helper"
    assert one["inputs"]["required"] == ["question"]
    assert one["token_bound"] >= 120
    assert (await site.sdk.models.retrieve("graph/helper")).id == "graph/helper"


@pytest.mark.parametrize(("question", "status"), [("break it", 503), ("refuse it", 400)])
async def test_failed_runs(start: Start, question: str, status: int) -> None:
    site = await start_helper(start)
    response = await run(site, {"question": question})
    assert response.status_code == status
    assert "'answer'" in response.json()["error"]["message"]
    assert "secret" not in response.text
    streamed = await run(site, {"question": question}, stream=True)
    assert streamed.status_code == 200
    name, data = events_of(streamed.text)[-1]
    assert name == "run_failed"
    assert data["node"] == "answer"
    assert "secret" not in streamed.text
    totals = await site.settled()
    assert totals.requests == 2


async def test_a_run_refused_at_once_has_a_status(start: Start) -> None:
    refused = RunFailed(Failure("UnknownGraph", "no such graph here"), Usage(), 0.0)
    site = await start(graphs={"scripted": info()}, runner=Scripted(refused))
    for stream in (False, True):
        body = {"inputs": {"question": "?"}, "stream": stream}
        response = await site.http.post("/v1/graphs/scripted/runs", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "graph_not_found")


async def test_a_run_that_stops_short_is_an_error(start: Start) -> None:
    started = RunStarted("id", "scripted", "1", "hash")
    site = await start(graphs={"scripted": info()}, runner=Scripted(started))
    body = {"inputs": {"question": "?"}}
    assert (await site.http.post("/v1/graphs/scripted/runs", json=body)).status_code == 503
    streamed = await site.http.post("/v1/graphs/scripted/runs", json={**body, "stream": True})
    assert events_of(streamed.text)[-1][0] == "error"
    chat = await site.chat(model="graph/scripted", stream=True)
    assert chat.status_code == 503


async def test_deadline_of_a_run(start: Start) -> None:
    runner = Scripted(RunStarted("id", "scripted", "1", "hash"), stay=True)
    site = await start(graphs={"scripted": info()}, runner=runner)
    response = await site.http.post(
        "/v1/graphs/scripted/runs",
        json={"inputs": {"question": "?"}, "stream": True},
        headers={"x-request-timeout": "1.5"},
    )
    name, data = events_of(response.text)[-1]
    assert (name, data["error"]["code"]) == ("error", "request_timeout")
    assert runner.closed
    assert (await site.settled()).tokens == 0


async def test_a_client_that_leaves_cancels_the_run(start: Start) -> None:
    site = await start_helper(start, FakeScript(token_s=0.2, output_tokens=1000))
    async with site.http.stream(
        "POST", "/v1/graphs/helper/runs", json={"inputs": {"question": "?"}, "stream": True}
    ) as response:
        async for line in response.aiter_lines():
            if line == "event: node_delta":
                break

    async def aborted() -> bool:
        return (await site.engine.status()).aborted == 1

    await eventually(aborted)
    assert 0 < (await site.settled()).tokens < 20


async def test_graph_as_a_chat_model(start: Start) -> None:
    site = await start_helper(start)
    messages: list[Any] = [
        {"role": "user", "content": "I live in Paris"},
        {"role": "assistant", "content": "Nice."},
        {"role": "user", "content": "Where do I live?"},
    ]
    answer = await site.sdk.chat.completions.create(model="graph/helper", messages=messages)
    assert answer.choices[0].message.content == "You said Paris."
    assert answer.usage is not None
    stream = await site.sdk.chat.completions.create(
        model="graph/helper", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content for chunk in chunks[:-2]]
    assert "".join(piece or "" for piece in pieces) == "You said Paris."
    assert len(pieces) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == answer.usage
    assert (await site.settled()).tokens == 2 * answer.usage.total_tokens


async def test_chat_with_a_graph_whose_reply_comes_in_one_piece(start: Start) -> None:
    finished = RunFinished({"text": {"answer": 42}}, Usage(1, 2), 0.1)
    site = await start(graphs={"scripted": info()}, runner=Scripted(finished))
    for stream in (False, True):
        response = await site.chat(model="graph/scripted", stream=stream)
        assert response.status_code == 200
        assert '{\\"answer\\":42}' in response.text
    assert (await site.settled()).tokens == 6


async def test_a_question_in_parts(start: Start) -> None:
    site = await start_helper(start)
    parts = [{"type": "text", "text": "I live"}, {"type": "text", "text": "in Paris"}]
    response = await site.chat(parts, model="graph/helper")
    assert response.json()["choices"][0]["message"]["content"] == "You said Paris."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 1.0}, "temperature"),
        ({"n": 2}, "n"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}],
                    }
                ]
            },
            "messages[0].content",
        ),
        ({"messages": [{"role": "user", "content": ""}]}, None),
    ],
)
async def test_chats_that_a_graph_refuses(start: Start, fields: dict[str, Any], param: str | None) -> None:
    site = await start_helper(start)
    response = await site.chat(model="graph/helper", **fields)
    assert response.status_code == (400 if param else 422)
    if param:
        assert response.json()["error"]["param"] == param


async def test_graph_that_is_not_for_chatting(start: Start) -> None:
    site = await start(graphs={"scripted": info(chat=False)}, runner=Scripted())
    response = await site.chat(model="graph/scripted")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "model_not_supported")
    kept = await site.http.post(
        "/v1/graphs/scripted/runs", json={"inputs": {"question": "?"}, "contextId": "c"}
    )
    assert (kept.status_code, kept.json()["error"]["param"]) == (400, "contextId")
    completion = await site.http.post("/v1/completions", json={"model": "graph/scripted", "prompt": "x"})
    assert completion.status_code == 400


async def test_a_run_reserves_its_bound(start: Start) -> None:
    site = await start_helper(start, limits=Limits(tokens_per_minute=50))
    response = await run(site, {"question": "may I?"})
    assert (response.status_code, response.json()["error"]["code"]) == (429, "request_exceeds_limit")


async def test_runs_continue_a_conversation(start: Start) -> None:
    site = await start_helper(start)
    first = await run(site, {"question": "I live in Paris"}, contextId="talk")
    assert first.headers["x-context-version"] == "1"
    second = await run(site, {"question": "Where?"}, contextId="talk", stream=True)
    events = events_of(second.text)
    assert [name for name, _ in events][-2:] == ["context_kept", "run_finished"]
    assert events[-2][1] == {"id": "talk", "version": 2}
    assert events[-1][1]["outputs"]["text"] == "You said Paris."
    third = await site.chat("And now?", model="graph/helper", contextId="talk")
    assert third.json()["choices"][0]["message"]["content"] == "You said Paris."
    failed = await run(site, {"question": "break"}, contextId="talk")
    assert failed.status_code == 503
    context = (await site.http.get("/v1/contexts/talk")).json()
    assert context["version"] == 3
    assert [turn["content"] for turn in context["sessionHistory"]][:2] == [
        "I live in Paris",
        "You said Paris.",
    ]
    assert len(context["sessionHistory"]) == 6
