"""What holds of every stream, in whatever dialect: events leave at once, a client that does not read stops
the engine, and one that breaks off says so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import uvicorn

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Failure, Finish, Generate, Usage
from cluster.pools.local import LocalPool
from serve_apps.gateway import http
from tests.serve_apps.conftest import CHAT, Site, Start, eventually

MESSAGES = [{"role": "user", "content": "hello there"}]
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hello there"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 20},
    "/v1/responses": {"input": "hello there"},
}
ENDS = {
    "/v1/chat/completions": "data: [DONE]",
    "/v1/completions": "data: [DONE]",
    "/v1/messages": "event: message_stop",
    "/v1/responses": "event: response.completed",
}
LARGE = "x" * 64 * 1024
MOST_BATCHES = 400
"""Of `LARGE` that may be under way to a client that reads nothing: 25 MiB, more than two sockets hold."""


class Held(LocalPool):
    """Says a word, and the next ones only when it is told to; or large ones without end."""

    def __init__(self, endless: bool = False) -> None:
        super().__init__(ModelInfo(CHAT, "generate", 200, 32), FakeEngine(), FakeTokenCounter())
        self.go_on = asyncio.Event()
        self.endless = endless
        self.said = 0
        self.closed = False

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        try:
            yield [Delta("first")]
            while self.endless:
                self.said += 1
                yield [Delta(LARGE)]
                await asyncio.sleep(0)
            await self.go_on.wait()
            yield [Delta(" second"), Finish("stop"), Usage(2, 2)]
        finally:
            self.closed = True


def body_of(path: str) -> dict[str, Any]:
    return {"model": CHAT, "stream": True, **DIALECTS[path]}


@pytest.mark.parametrize("path", DIALECTS)
async def test_events_leave_at_once(start: Start, path: str) -> None:
    """The client has the first word while the engine is still silent about the second."""
    pool = Held()
    site = await start(pools={CHAT: pool})
    async with site.http.stream("POST", path, json=body_of(path)) as response:
        seen = ""
        parts = response.aiter_text()
        async for part in parts:
            seen += part
            if "first" in seen:
                break
        assert "second" not in seen
        assert ENDS[path] not in seen
        pool.go_on.set()
        async for part in parts:
            seen += part
    assert "second" in seen
    assert ENDS[path] in seen
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_client_that_does_not_read_stops_the_engine(start: Start, path: str) -> None:
    """What waits for it is bounded, and when it leaves the call ends."""
    pool = Held(endless=True)
    site = await start(pools={CHAT: pool})
    async with site.http.stream("POST", path, json=body_of(path)) as response:
        assert response.status_code == 200
        before = -1
        while pool.said != before:  # until nothing more goes out
            before = pool.said
            await asyncio.sleep(0.3)
            assert pool.said < MOST_BATCHES
        assert not pool.closed

    async def closed() -> bool:
        return pool.closed

    await eventually(closed)
    await site.settled()


@pytest.mark.parametrize("path", DIALECTS)
async def test_an_engine_that_breaks_off_is_no_end(start: Start, path: str) -> None:
    failure = Failure("EngineFailed", "secret")
    rule = Rule(contains="hello", reply="one two three", failure=failure, failure_after=2)
    site = await start(FakeScript(rules=[rule]))
    response = await site.http.post(path, json=body_of(path))
    assert response.status_code == 200
    last = [event for event in response.text.split("\n\n") if event][-1]
    assert "The engine failed at this call." in last
    assert "secret" not in response.text
    assert ENDS[path] not in response.text


@pytest.mark.parametrize("path", DIALECTS)
async def test_silence_is_filled(start: Start, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEARTBEAT_S", 0.02)
    pool = Held()
    site = await start(pools={CHAT: pool})
    async with site.http.stream("POST", path, json=body_of(path)) as response:
        seen = ""
        async for part in response.aiter_text():
            seen += part
            if (": keep-alive" in seen) or ("event: ping" in seen):
                pool.go_on.set()
    assert ENDS[path] in seen
    assert ("event: ping" in seen) == (path == "/v1/messages")


async def test_small_events_do_not_wait_for_more(site: Site) -> None:
    """The server's sockets send at once (TCP_NODELAY): no event waits for the acknowledgement of another."""
    server = uvicorn.Server(uvicorn.Config(site.app, port=0, log_level="warning", lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: _started(server))
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/healthz")).status_code == 200
            (connection,) = server.server_state.connections
            sock = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        server.should_exit = True
        await serving


async def _started(server: uvicorn.Server) -> bool:
    return server.started
