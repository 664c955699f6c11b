from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cluster.config import AnthropicSpec
from cluster.errors import (
    ClusterError,
    DeadlineExceeded,
    EngineFailed,
    InvalidCall,
    ModelUnavailable,
    Overloaded,
)
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Finish, Sampling, Usage
from cluster.providers import remote
from cluster.providers.anthropic import AnthropicPool
from cluster.tokens import ByteTokenCounter
from tests.cluster.calls import chat, embed, events_of, generate, keep, text_of

KEY = "sk-ant-secret"
START = {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}}
HELLO = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hé\u2028"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}
WHOLE = {
    "type": "message",
    "content": [{"type": "text", "text": "Hé\u2028"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 4, "output_tokens": 2},
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mock:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[web.Request, dict[str, Any]]] = []
        self.answer: Answer = whole(WHOLE)
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Mock]:
        app = web.Application()
        app.router.add_post("/v1/messages", self._take)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.json()))
        return await self.answer(request)


def whole(reply: Any, status: int = 200, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(reply, status=status, headers=headers)

    return answer


def streamed(*events: dict[str, Any], cut: bool = False, hang: bool = False) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            told = f"event: {event['type']}\r\ndata: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode()
            await response.write(told[:11])
            await asyncio.sleep(0)
            await response.write(told[11:])
        if hang:
            await asyncio.Event().wait()
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


@pytest.fixture
async def mock() -> AsyncIterator[Mock]:
    async with Mock().serve() as running:
        yield running


@pytest.fixture
async def pool(mock: Mock) -> AsyncIterator[AnthropicPool]:
    pool = pool_at(mock.url)
    yield pool
    await pool.close()


def pool_at(url: str, **fields: Any) -> AnthropicPool:
    given = {"name": "ours", "engine": "anthropic", "base_url": url, "model": "claude", "api_key_env": "K"}
    spec = AnthropicSpec.model_validate(given | fields)
    return AnthropicPool(spec, ModelInfo("ours", "generate", 512, 16), ByteTokenCounter(), {"K": KEY})


async def test_a_call_goes_out_with_the_key_and_nothing_of_the_tenant(
    pool: AnthropicPool, mock: Mock
) -> None:
    events = await events_of(pool.generate(chat("Hi", tenant="acme", max_tokens=9)))
    assert events == [Delta("Hé\u2028"), Finish("stop"), Usage(4, 2)]
    [(request, body)] = mock.requests
    assert body == {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert (request.headers["x-api-key"], request.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "acme" not in str(request.headers)


async def test_without_a_key_none_is_sent(mock: Mock) -> None:
    pool = pool_at(mock.url + "/", api_key_env=None)
    assert text_of(await events_of(pool.generate(chat())))
    assert "x-api-key" not in mock.requests[0][0].headers
    await pool.close()


async def test_a_stream_arrives_as_it_comes(pool: AnthropicPool, mock: Mock) -> None:
    mock.answer = streamed(START, HELLO, {"type": "ping"}, HELLO, END, STOP)
    batches = [batch async for batch in pool.generate(chat(stream=True))]
    assert batches == [[Delta("Hé\u2028")], [Delta("Hé\u2028")], [Finish("stop")], [Usage(4, 2)]]


STATUSES = [
    (401, EngineFailed, None),
    (429, Overloaded, 7.0),
    (500, EngineFailed, None),
    (529, ModelUnavailable, 7.0),
    (307, EngineFailed, None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind", "retry_after_s"), STATUSES)
async def test_a_providers_trouble_is_put_in_our_terms(
    pool: AnthropicPool,
    mock: Mock,
    stream: bool,
    status: int,
    kind: type[ClusterError],
    retry_after_s: float | None,
) -> None:
    error = {"type": "error", "error": {"type": "x", "message": f"about {KEY}"}}
    mock.answer = whole(error, status, **{"Retry-After": "7", "Location": f"{mock.url}/messages"})
    with pytest.raises(kind) as caught:
        await events_of(pool.generate(chat(stream=stream)))
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == retry_after_s
    assert KEY not in caught.value.message
    assert len(mock.requests) == 1  # a redirect is not followed


async def test_a_refused_call_says_why(pool: AnthropicPool, mock: Mock) -> None:
    mock.answer = whole({"type": "error", "error": {"type": "x", "message": "prompt is too long"}}, 400)
    with pytest.raises(InvalidCall, match="prompt is too long"):
        await events_of(pool.generate(chat()))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (streamed(START, HELLO), EngineFailed),
        (streamed(START, HELLO, cut=True), EngineFailed),
        (streamed(START, HELLO, END), EngineFailed),
        (streamed(START, HELLO, {"type": "error", "error": {"type": "overloaded_error"}}), ModelUnavailable),
    ],
    ids=["ended", "cut", "no stop", "error"],
)
async def test_a_stream_that_breaks_off_is_an_error_after_what_came(
    pool: AnthropicPool, mock: Mock, answer: Answer, kind: type[ClusterError]
) -> None:
    mock.answer = answer
    seen: Batch = []
    with pytest.raises(kind):
        await keep(pool.generate(chat(stream=True)), seen)
    assert text_of(seen)
    assert not any(isinstance(event, Usage) for event in seen)


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_is_missing_is_bounded_from_above(
    pool: AnthropicPool, mock: Mock, stream: bool
) -> None:
    untold = {name: value for name, value in WHOLE.items() if name != "usage"}
    unended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    start = {"type": "message_start", "message": {}}
    mock.answer = streamed(start, HELLO, unended, STOP) if stream else whole(untold)
    call = chat("Hi", stream=stream)
    events = await events_of(pool.generate(call))
    assert events[-1] == Usage(pool.count_tokens(call), len("Hé\u2028".encode()))


async def test_what_cannot_be_put_is_not_sent(pool: AnthropicPool, mock: Mock) -> None:
    for call in (generate(prompt="Once"), chat(sampling=Sampling(n=2))):
        with pytest.raises(InvalidCall):
            await events_of(pool.generate(call))
    with pytest.raises(InvalidCall, match="no embeddings"):
        await pool.embed(embed("a"))
    with pytest.raises(DeadlineExceeded):
        await events_of(pool.generate(chat(deadline=time.time() - 1)))
    assert mock.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_ends_the_call(pool: AnthropicPool, mock: Mock, stream: bool) -> None:
    mock.answer = streamed(START, HELLO, hang=True)
    with pytest.raises(DeadlineExceeded):
        await events_of(pool.generate(chat(stream=stream, deadline=time.time() + 0.1)))


async def test_a_connection_serves_one_stream_after_another(pool: AnthropicPool, mock: Mock) -> None:
    mock.answer = streamed(START, HELLO, END, STOP)
    for _ in range(3):
        await events_of(pool.generate(chat(stream=True)))
    assert len({request.get_extra_info("peername")[1] for request, _ in mock.requests}) == 1


async def test_what_is_too_large_is_not_read(
    pool: AnthropicPool, mock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_REPLY_BYTES", 64)
    monkeypatch.setattr(remote, "MAX_EVENT_BYTES", 8)
    with pytest.raises(EngineFailed, match="reply is too large"):
        await events_of(pool.generate(chat()))
    mock.answer = streamed(START, HELLO, END, STOP)
    with pytest.raises(EngineFailed, match="event is too large"):
        await events_of(pool.generate(chat(stream=True)))


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pool = pool_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ModelUnavailable, match="ours cannot be reached"):
            await events_of(pool.generate(chat()))
    assert await pool.ready()
    await pool.close()
