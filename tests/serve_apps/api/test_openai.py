"""The OpenAI routes as the official SDK sees them."""

from __future__ import annotations

import base64
import struct
import threading
from typing import Any

import openai
import pytest

from cluster.engines.fake import FakeScript, FakeTokenCounter, Rule
from cluster.messages import Embed, Failure, Generate
from serve_apps.api.openai import LARGE_PROMPT_CHARS
from serve_apps.gateway.limits import Limits
from tests.serve_apps.conftest import CHAT, DEFAULT_MAX_TOKENS, EMBED, MAX_CONTEXT, Site, Start

PARIS = FakeScript(rules=[Rule(contains="capital of France", reply="The capital of France is Paris.")])
ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL_CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


async def test_chat(start: Start) -> None:
    site = await start(PARIS)
    answer = await site.sdk.chat.completions.create(model=CHAT, messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.model == CHAT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 6)
    assert (await site.settled()).tokens == answer.usage.total_tokens == 12


async def test_streamed_chat(start: Start) -> None:
    site = await start(PARIS)
    stream = await site.sdk.chat.completions.create(
        model=CHAT, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:-1])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "The capital of France is Paris."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1
    assert (await site.settled()).tokens == 12


async def test_stream_has_no_usage_unless_asked(start: Start) -> None:
    site = await start(PARIS)
    stream = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_deltas_of_one_batch_are_one_chunk(start: Start) -> None:
    site = await start(FakeScript(rules=PARIS.rules, tokens_per_batch=4))
    stream = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert texts == ["The capital of France", " is Paris.", None]


async def test_stream_ends_with_done(site: Site) -> None:
    response = await site.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


async def test_several_choices(site: Site) -> None:
    answer = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, n=3, max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.message.content and choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    stream = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, n=3, max_tokens=2, stream=True)
    finished = {choice.index async for chunk in stream for choice in chunk.choices if choice.finish_reason}
    assert finished == {0, 1, 2}


async def test_tool_calls_pass_through(start: Start) -> None:
    site = await start(FakeScript(rules=[Rule(contains="capital", tool_calls=TOOL_CALLS)]))
    answer = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, tools=TOOLS)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].to_dict() == TOOL_CALLS[0]
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    follow_up: list[Any] = [
        *ASK,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "user", "content": "thanks"},
    ]
    thanks = await site.sdk.chat.completions.create(model=CHAT, messages=follow_up, tools=TOOLS)
    assert thanks.choices[0].message.content


async def test_streamed_tool_calls(start: Start) -> None:
    site = await start(FakeScript(rules=[Rule(contains="capital", tool_calls=TOOL_CALLS)]))
    async with site.sdk.chat.completions.stream(model=CHAT, messages=ASK, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "weather"
    assert calls[0].function.arguments == '{"city": "Paris"}'


async def test_content_parts(start: Start) -> None:
    site = await start(PARIS)
    parts = [{"type": "text", "text": "What is the"}, {"type": "text", "text": "capital of France?"}]
    response = await site.chat(parts)
    assert "Paris" in response.json()["choices"][0]["message"]["content"]


async def test_completion(site: Site) -> None:
    answer = await site.sdk.completions.create(model=CHAT, prompt="once upon a time", max_tokens=3)
    assert answer.object == "text_completion"
    assert len(answer.choices[0].text.split()) == 3
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 3)
    stream = await site.sdk.completions.create(
        model=CHAT,
        prompt="once upon a time",
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == answer.choices[0].text
    assert chunks[-1].usage == answer.usage
    assert (await site.settled()).tokens == 14


async def test_embeddings_in_both_encodings(site: Site) -> None:
    texts = ["red apples", "green apples grow"]
    packed = await site.sdk.embeddings.create(model=EMBED, input=texts)
    plain = await site.sdk.embeddings.create(model=EMBED, input=texts, encoding_format="float")
    assert [item.index for item in plain.data] == [0, 1]
    assert [len(item.embedding) for item in plain.data] == [384, 384]
    for ours, theirs in zip(packed.data, plain.data, strict=True):
        assert ours.embedding == pytest.approx(theirs.embedding)
    assert plain.usage.total_tokens == 5
    raw = await site.http.post(
        "/v1/embeddings", json={"model": EMBED, "input": "a", "encoding_format": "base64"}
    )
    assert len(struct.unpack("<384f", base64.b64decode(raw.json()["data"][0]["embedding"]))) == 384
    assert (await site.settled()).tokens == 11


async def test_max_tokens_defaults_and_clamps(start: Start) -> None:
    site = await start(FakeScript(output_tokens=10_000))
    default = await site.chat()
    assert default.json()["usage"]["completion_tokens"] == DEFAULT_MAX_TOKENS
    long_prompt = "word " * (MAX_CONTEXT - 5)
    clamped = await site.chat(long_prompt)
    assert clamped.json()["usage"]["completion_tokens"] == 5
    named = await site.chat(max_completion_tokens=7)
    assert named.json()["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize("fields", [{"max_tokens": MAX_CONTEXT}, {}])
async def test_context_length(site: Site, fields: dict[str, int]) -> None:
    text = "word " * (10 if fields else MAX_CONTEXT)
    response = await site.chat(text, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    assert str(MAX_CONTEXT) in error["message"]
    assert (await site.totals()).requests == 0


async def test_embedding_that_is_too_long(site: Site) -> None:
    texts = ["short", "word " * (MAX_CONTEXT + 1)]
    response = await site.http.post("/v1/embeddings", json={"model": EMBED, "input": texts})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input[1]"


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Failure("InvalidCall", "no images here", param="messages"), 400, openai.BadRequestError),
        (Failure("Overloaded", "all queues are full", retry_after_s=2.5), 503, openai.InternalServerError),
        (Failure("ModelUnavailable", "no replica"), 503, openai.InternalServerError),
        (Failure("ReplicaLost", "actor 0xdead died on 10.0.0.3"), 503, openai.InternalServerError),
        (Failure("EngineFailed", "Traceback: secret path"), 503, openai.InternalServerError),
        (Failure("DeadlineExceeded", "too slow"), 408, openai.APIStatusError),
        (Failure("ConfigError", "secret path"), 500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_before_the_first_token_have_a_status(
    start: Start, failure: Failure, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    site = await start(FakeScript(rules=[Rule(contains="capital", reply="never", failure=failure)]))
    with pytest.raises(kind) as caught:
        await site.sdk.chat.completions.create(model=CHAT, messages=ASK, stream=stream)
    assert caught.value.status_code == status
    assert "secret" not in str(caught.value)
    assert "0xdead" not in str(caught.value)
    if status == 503:
        assert int(caught.value.response.headers["retry-after"]) >= (failure.retry_after_s or 1)
    assert (await site.settled()).tokens in (0, 6, 6 + DEFAULT_MAX_TOKENS)


async def test_failure_before_the_first_token_gives_the_request_back(start: Start) -> None:
    failure = Failure("ReplicaLost", "gone")
    site = await start(FakeScript(rules=[Rule(contains="capital", reply="never", failure=failure)]))
    with pytest.raises(openai.InternalServerError):
        await site.sdk.chat.completions.create(model=CHAT, messages=ASK)
    totals = await site.settled()
    assert (totals.requests, totals.tokens) == (0, 0)


async def test_a_call_the_engine_refuses_counts_as_a_request(start: Start) -> None:
    failure = Failure("InvalidCall", "no", param="temperature")
    site = await start(FakeScript(rules=[Rule(contains="capital", reply="never", failure=failure)]))
    with pytest.raises(openai.BadRequestError) as caught:
        await site.sdk.chat.completions.create(model=CHAT, messages=ASK)
    assert caught.value.param == "temperature"
    totals = await site.settled()
    assert (totals.requests, totals.tokens) == (1, 0)


async def test_broken_upstream_is_an_error_event_and_no_done(start: Start) -> None:
    rule = Rule(
        contains="capital", reply="one two three four", failure=Failure("EngineFailed", "x"), failure_after=2
    )
    site = await start(FakeScript(rules=[rule]), limits=Limits(tokens_per_minute=1000))
    response = await site.chat("the capital of France", stream=True)
    assert response.status_code == 200
    events = [line for line in response.text.split("\n\n") if line]
    assert '"error"' in events[-1]
    assert "engine_failed" in events[-1]
    assert "[DONE]" not in response.text
    stream = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="engine failed"):
        _ = [chunk async for chunk in stream]
    totals = await site.settled()
    assert totals.tokens == (4 + 2) + (6 + 2)


async def test_large_prompts_are_counted_aside(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    counted_in: list[str] = []
    count = FakeTokenCounter.count

    def watched(self: FakeTokenCounter, call: Generate | Embed) -> int:
        counted_in.append(threading.current_thread().name)
        return count(self, call)

    monkeypatch.setattr(FakeTokenCounter, "count", watched)
    site = await start()
    text = "x" * (LARGE_PROMPT_CHARS + 1)
    assert (await site.chat(text)).status_code == 200
    assert (await site.http.post("/v1/embeddings", json={"model": EMBED, "input": text})).status_code == 200
    await site.settled()
    assert sum(name != threading.main_thread().name for name in counted_in) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_of_several_prompts(start: Start, stream: bool) -> None:
    rules = [Rule(contains="sea", reply="blue waves"), Rule(contains="wood", reply="green")]
    site = await start(FakeScript(rules=rules), limits=Limits(tokens_per_minute=100))
    given: Any = {"model": CHAT, "prompt": ["The sea", "A wood here"], "n": 2, "max_tokens": 10}
    texts = dict.fromkeys(range(4), "")
    if stream:
        options: Any = {"include_usage": True}
        async for chunk in await site.sdk.completions.create(**given, stream=True, stream_options=options):
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    else:
        whole = await site.sdk.completions.create(**given)
        usage = whole.usage
        assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
        texts = {choice.index: choice.text for choice in whole.choices}
    assert list(texts.values()) == ["blue waves", "blue waves", "green", "green"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 6)
    assert (await site.settled()).tokens == 11
    with pytest.raises(openai.RateLimitError):  # 5 and 4 outputs of 25 are more than what is left
        await site.sdk.completions.create(**{**given, "max_tokens": 25})
    assert (await site.settled()).tokens == 11


@pytest.mark.parametrize("prompt", [[], [""], ["a", ""], ["a", 3], [[1, 2]], ["a"] * 33])
async def test_prompts_that_are_none_are_refused(site: Site, prompt: Any) -> None:
    refused = await site.http.post("/v1/completions", json={"model": CHAT, "prompt": prompt})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")


async def test_a_prompt_of_several_that_is_too_long_refuses_the_call(site: Site) -> None:
    body = {"model": CHAT, "prompt": ["a", "word " * 300], "max_tokens": 5}
    refused = await site.http.post("/v1/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
