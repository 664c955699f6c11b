"""Anthropic's routes as its official SDK sees them, and their errors on the wire."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types.shared import ErrorResponse

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from runtime.events import NodeDelta, NodeFinished, RunFinished, RunStarted
from serve_apps.gateway import http
from serve_apps.gateway.limits import Limits
from serve_apps.settings import GatewaySettings
from tests.serve_apps.api.test_graphs import Scripted, info
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start

PARIS = FakeScript(rules=[Rule(contains="capital of France", reply="The capital of France is Paris.")])
ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL_CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
]
TOOLS: list[Any] = [{"name": "weather", "input_schema": {"type": "object"}}]
BODY = {"model": CHAT, "max_tokens": 20, "messages": ASK}


def error_of(body: bytes, kind: str, request_id: str) -> str:
    """The message of an error that says exactly what the SDK's type has."""
    sent = json.loads(body)
    parsed = ErrorResponse.model_validate(sent)
    assert parsed.model_dump(mode="json", exclude_unset=True) == sent
    assert not parsed.error.model_extra
    assert (sent["error"]["type"], sent["request_id"]) == (kind, request_id)
    message: str = sent["error"]["message"]
    return message


async def test_a_message(start: Start) -> None:
    site = await start(PARIS)
    answer = await site.anthropic.messages.create(
        model=CHAT, max_tokens=20, system="Answer briefly.", messages=ASK, extra_body={"temperature": 0}
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "The capital of France is Paris."
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", CHAT, "end_turn")
    assert answer.id.startswith("msg_")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (8, 6)
    assert answer._request_id is not None
    assert (await site.settled()).tokens == 14


async def test_a_streamed_message(start: Start) -> None:
    site = await start(PARIS, limits=Limits(tokens_per_minute=100))
    async with site.anthropic.messages.stream(model=CHAT, max_tokens=20, messages=ASK) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["The", " capital", " of", " France", " is", " Paris."]
    assert final.content[0].type == "text"
    assert final.content[0].text == "The capital of France is Paris."
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 6, 6)
    assert (await site.settled()).tokens == 12


async def test_the_bound_and_the_stops(start: Start) -> None:
    site = await start(PARIS)
    cut = await site.anthropic.messages.create(model=CHAT, max_tokens=2, messages=ASK)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
    for stream in (False, True):
        body = {**BODY, "stop_sequences": ["Rome", " is"], "stream": stream}
        response = await site.http.post("/v1/messages", json=body)
        assert '"stop_reason":"stop_sequence","stop_sequence":" is"' in response.text
        assert "Paris" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(start: Start, stream: bool) -> None:
    """A tool is called, and its result goes back as the SDK sends it."""
    site = await start(FakeScript(rules=[Rule(contains="capital", tool_calls=TOOL_CALLS)]))
    ask: dict[str, Any] = {"model": CHAT, "max_tokens": 20, "tools": TOOLS, "messages": ASK}
    if stream:
        async with site.anthropic.messages.stream(**ask) as events:
            answer: Any = await events.get_final_message()
    else:
        answer = await site.anthropic.messages.create(**ask)
    assert answer.stop_reason == "tool_use"
    (used,) = answer.content
    assert (used.type, used.id, used.name, used.input) == ("tool_use", "call_1", "weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "sunny"}
    turns = [*ASK, answer.to_param(), {"role": "user", "content": [result, {"type": "text", "text": "so?"}]}]
    after = await site.anthropic.messages.create(**{**ask, "messages": turns})
    assert after.stop_reason == "end_turn"
    assert after.content[0].type == "text"


async def test_structured_output(site: Site) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["good", "bad"]}},
        "required": ["label"],
    }
    answer = await site.anthropic.messages.create(
        **BODY,  # type: ignore[arg-type]
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(answer.content[0].text) == {"label": "good"}  # type: ignore[union-attr]


async def test_a_graph(start: Start) -> None:
    events = (
        RunStarted("id", "scripted", "1", "hash"),
        NodeDelta("answer", "Par"),
        NodeDelta("answer", "is"),
        NodeFinished("answer", 0.1),
        RunFinished({"text": "Paris"}, Usage(3, 2), 0.1),
    )
    site = await start(graphs={"scripted": info()}, runner=Scripted(*events))
    ask: dict[str, Any] = {"model": "graph/scripted", "max_tokens": 1, "messages": ASK}
    whole = await site.anthropic.messages.create(**ask)
    async with site.anthropic.messages.stream(**ask) as stream:
        streamed = await stream.get_final_message()
    for answer in (whole, streamed):
        assert answer.content[0].text == "Paris"  # type: ignore[union-attr]
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2)
    with pytest.raises(anthropic.BadRequestError, match="decided by the graph's own nodes"):
        await site.anthropic.messages.create(**ask, extra_body={"temperature": 0.5})


async def test_a_count_takes_a_request_and_no_tokens(start: Start) -> None:
    site = await start(limits=Limits(requests_per_minute=2, tokens_per_minute=1))
    for _ in range(2):
        counted = await site.anthropic.messages.count_tokens(model=CHAT, system="Be kind.", messages=ASK)
        assert counted.to_dict() == {"input_tokens": 8}
    totals = await site.settled()
    assert (totals.requests, totals.tokens) == (2, 0)
    with pytest.raises(anthropic.RateLimitError):
        await site.anthropic.messages.count_tokens(model=CHAT, messages=ASK)


async def test_what_has_no_tokenizer_is_not_counted(start: Start) -> None:
    site = await start(graphs={"scripted": info()}, runner=Scripted())
    for model, says in ((EMBED, "is not at hand"), ("graph/scripted", "no tokens of its own")):
        with pytest.raises(anthropic.BadRequestError, match=says):
            await site.anthropic.messages.count_tokens(model=model, messages=ASK)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "says"),
    [
        ("/v1/messages", b"{", 400, "invalid_request_error", "not valid JSON"),
        ("/v1/messages", b"{}", 400, "invalid_request_error", "Missing required field 'model'"),
        ("/v1/messages/count_tokens", b"{}", 400, "invalid_request_error", "Missing required field"),
        ("/v1/messages", json.dumps({**BODY, "model": "tiny-caht"}), 404, "not_found_error", f"'{CHAT}'?"),
        (
            "/v1/messages",
            json.dumps({**BODY, "model": EMBED}),
            400,
            "invalid_request_error",
            "/v1/embeddings",
        ),
        ("/v1/messages", json.dumps({**BODY, "max_tokens": 9999}), 400, "invalid_request_error", "context"),
        ("/v1/messages", b" " * 2000, 413, "invalid_request_error", "larger than 1024 bytes"),
    ],
)
async def test_refusals(
    start: Start, path: str, body: bytes | str, status: int, kind: str, says: str
) -> None:
    site = await start(settings=GatewaySettings(max_body_bytes=1024))
    headers = {"content-type": "application/json", "x-request-id": "mine-1"}
    response = await site.http.post(path, content=body, headers=headers)
    assert response.status_code == status
    assert says in error_of(response.content, kind, "mine-1")
    assert response.headers["request-id"] == response.headers["x-request-id"] == "mine-1"
    assert (await site.totals()).requests == 0


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/x"])
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "sk-wrong"}, {"authorization": "Basic x"}])
async def test_no_good_key(site: Site, path: str, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=site.url) as client:
        method = "GET" if "models" in path else "POST"
        response = await client.request(method, path, headers={**headers, "anthropic-version": "2023-06-01"})
    assert response.status_code == 401
    error_of(response.content, "authentication_error", response.headers["request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/v1/models", 405, "invalid_request_error"),
    ],
)
async def test_what_is_not_there(site: Site, method: str, path: str, status: int, kind: str) -> None:
    response = await site.http.request(method, path, headers={"anthropic-version": "2023-06-01"})
    assert response.status_code == status
    error_of(response.content, kind, response.headers["request-id"])


async def test_other_errors_have_the_sdks_classes(start: Start) -> None:
    site = await start(models=[EMBED], limits=Limits(requests_per_minute=1))
    with pytest.raises(anthropic.PermissionDeniedError, match="may not use"):
        await site.anthropic.messages.create(**BODY)  # type: ignore[call-overload]
    site = await start(limits=Limits(requests_per_minute=1))
    await site.anthropic.messages.create(**BODY)  # type: ignore[call-overload]
    with pytest.raises(anthropic.RateLimitError) as caught:
        await site.anthropic.messages.create(**BODY)  # type: ignore[call-overload]
    error_of(caught.value.response.content, "rate_limit_error", caught.value.request_id or "")
    assert int(caught.value.response.headers["retry-after"]) > 0
    slow = await start(FakeScript(first_token_s=60))
    late = await slow.http.post("/v1/messages", json=BODY, headers={"x-request-timeout": "1.5"})
    assert late.status_code == 408
    error_of(late.content, "timeout_error", late.headers["request-id"])


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Failure("InvalidCall", "no images here", param="messages"), 400, "invalid_request_error"),
        (Failure("Overloaded", "all queues are full"), 503, "overloaded_error"),
        (Failure("EngineFailed", "secret path"), 503, "overloaded_error"),
        (Failure("ConfigError", "secret path"), 500, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures(start: Start, failure: Failure, status: int, kind: str, stream: bool) -> None:
    """Before the first event they have a status; after it they are an event, and nothing says the end."""
    early = await start(FakeScript(rules=[Rule(contains="capital", reply="never", failure=failure)]))
    response = await early.http.post("/v1/messages", json={**BODY, "stream": stream})
    assert response.status_code == status
    error_of(response.content, kind, response.headers["request-id"])
    if not stream:
        return
    rule = Rule(contains="capital", reply="one two three", failure=failure, failure_after=2)
    late = await start(FakeScript(rules=[rule]))
    response = await late.http.post("/v1/messages", json={**BODY, "stream": True})
    *events, last, rest = response.text.split("\n\n")
    assert rest == ""
    assert len(events) == 4
    name, data = last.split("\n")
    assert name == "event: error"
    assert "secret" not in error_of(
        data.removeprefix("data: ").encode(), kind, response.headers["request-id"]
    )
    assert "message_stop" not in response.text
    async with late.anthropic.messages.stream(model=CHAT, max_tokens=20, messages=ASK) as told:
        with pytest.raises(anthropic.APIStatusError):
            await told.get_final_message()
    assert (await late.settled()).tokens == 2 * (6 + 2)


async def test_a_broken_tool_call_is_an_error_that_is_charged(start: Start) -> None:
    broken = [{**TOOL_CALLS[0], "function": {"name": "weather", "arguments": "{no json"}}]
    site = await start(FakeScript(rules=[Rule(contains="capital", tool_calls=broken)]))
    response = await site.http.post("/v1/messages", json={**BODY, "tools": TOOLS})
    assert response.status_code == 503
    assert "engine failed" in error_of(response.content, "overloaded_error", response.headers["request-id"])
    assert (await site.settled()).tokens == 6


async def test_silence_is_told_as_pings(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEARTBEAT_S", 0.05)
    site = await start(FakeScript(rules=PARIS.rules, token_s=0.2))
    response = await site.http.post("/v1/messages", json={**BODY, "stream": True})
    events = response.text.split("\n\n")
    assert 'event: ping\ndata: {"type": "ping"}' in events
    assert events[0].startswith("event: message_start")
    async with site.anthropic.messages.stream(model=CHAT, max_tokens=20, messages=ASK) as stream:
        final = await stream.get_final_message()
    assert final.content[0].text == "The capital of France is Paris."  # type: ignore[union-attr]


async def test_pings_are_not_kept_for_a_retry(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEARTBEAT_S", 0.05)
    site = await start(FakeScript(rules=PARIS.rules, token_s=0.2))
    first, second = [
        await site.http.post("/v1/messages", json={**BODY, "stream": True}, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert "event: ping" in first.text
    assert second.text == first.text.replace('event: ping\ndata: {"type": "ping"}\n\n', "")
    assert "message_stop" in second.text


async def test_a_retry_is_not_done_again(start: Start) -> None:
    """Under one idempotency key the answer is the first one, with the id of its own request."""
    site = await start()
    first, second = [
        await site.http.post(
            "/v1/messages", json=BODY, headers={"idempotency-key": "k-1", "x-request-id": name}
        )
        for name in ("one", "two")
    ]
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert (first.headers["request-id"], second.headers["request-id"]) == ("one", "two")
    assert (await site.settled()).requests == 1


async def test_many_at_once_in_both_dialects(site: Site) -> None:
    """What one dialect says of a request is not said of another's."""
    ours = [site.http.post("/v1/messages", json={**BODY, "max_tokens": 0}) for _ in range(5)]
    theirs = [site.http.post("/v1/chat/completions", json={**BODY, "max_tokens": 0}) for _ in range(5)]
    answers = await asyncio.gather(*ours, *theirs)
    assert all(answer.json().get("type") == "error" for answer in answers[:5])
    assert all(list(answer.json()) == ["error"] for answer in answers[5:])
    assert all("request-id" not in answer.headers for answer in answers[5:])


async def test_limits_are_told_as_anthropic_tells_them(start: Start) -> None:
    site = await start(limits=Limits(requests_per_minute=1, tokens_per_minute=100))
    body: Any = {"model": CHAT, "max_tokens": 8, "messages": [{"role": "user", "content": "Hi there"}]}
    first = await site.anthropic.messages.with_raw_response.create(**body)
    assert first.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert first.headers["anthropic-ratelimit-tokens-remaining"] == str(100 - 2 - 8)
    assert datetime.fromisoformat(first.headers["anthropic-ratelimit-tokens-reset"]).tzinfo is not None
    assert not [name for name in first.headers if name.startswith("x-ratelimit")]
    with pytest.raises(anthropic.RateLimitError) as refused:
        await site.anthropic.messages.create(**body)
    assert refused.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert int(refused.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_can_continue_a_conversation_that_is_kept(start: Start, stream: bool) -> None:
    site = await start(FakeScript(rules=[Rule(contains="", reply="Noted.")]))
    for text in ("My name is Ada.", "And yours?"):
        body = {
            "model": CHAT,
            "max_tokens": 8,
            "stream": stream,
            "contextId": "c-1",
            "system": "Be brief.",
            "messages": [{"role": "user", "content": text}],
        }
        answer = await site.http.post("/v1/messages", json=body)
        assert (answer.status_code, answer.headers["x-context-id"]) == (200, "c-1")
    kept = (await site.http.get("/v1/contexts/c-1")).json()["sessionHistory"]
    assert [turn["content"] for turn in kept] == ["My name is Ada.", "Noted.", "And yours?", "Noted."]
    body["contextId"] = "no such/name"
    refused = await site.http.post("/v1/messages", json=body)
    assert refused.status_code == 400
    assert "contextId" in refused.text
