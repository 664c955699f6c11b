"""One exchange over raw ASGI."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serve_apps.gateway import http
from serve_apps.gateway.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    RequestTimedOut,
    UnsupportedMediaType,
)
from serve_apps.gateway.http import Exchange, request_ids, timeout_of

JSON = [(b"content-type", b"application/json; charset=utf-8")]


class Wire:
    """The server's side."""

    def __init__(self, *incoming: dict[str, Any]) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        self.broken = False
        for message in incoming:
            self.incoming.put_nowait(message)

    async def send(self, message: Any) -> None:
        if self.broken:
            raise OSError("closed")
        self.sent.append(message)

    def exchange(self, headers: list[tuple[bytes, bytes]] | None = None) -> Exchange:
        scope = {"path": "/", "headers": JSON if headers is None else headers}
        return Exchange(scope, self.incoming.get, self.send)


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_ids() -> None:
    own, shown = request_ids({b"x-request-id": b"abc-1"})
    assert (len(own), shown) == (32, b"abc-1")
    for dirty in (b"a b", b"a\r\nb", b"x" * 129, b""):
        own, shown = request_ids({b"x-request-id": dirty})
        assert shown == own.encode()


def test_ids_are_in_the_order_of_the_requests_and_never_the_same() -> None:
    before = int(time.time() * 1000)
    own = [request_ids({})[0] for _ in range(1000)]
    times = [int(one[:12], 16) for one in own]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time() * 1000
    assert len(set(own)) == 1000


def test_timeouts_are_bounded() -> None:
    assert timeout_of({}, 5, 10) == 5
    assert timeout_of({b"x-request-timeout": b"2.5"}, 5, 10) == 2.5
    assert timeout_of({b"x-request-timeout": b"1e9"}, 5, 10) == 10
    with pytest.raises(BadRequest):
        timeout_of({b"x-request-timeout": b"-1"}, 5, 10)


async def test_body_in_parts() -> None:
    wire = Wire(part(b"ab", True), part(b"", True), part(b"cd"))
    exchange = wire.exchange()
    async with exchange.bounded(1.0, 100.0):
        assert await exchange.body(4) == b"abcd"
        assert (exchange.seconds, exchange.deadline) == (1.0, 101.0)


@pytest.mark.parametrize(
    ("wire", "headers", "error"),
    [
        (Wire(part(b"abcde")), None, BodyTooLarge),
        (Wire(part(b"abc", True), part(b"de")), None, BodyTooLarge),
        (Wire(), [*JSON, (b"content-length", b"5")], BodyTooLarge),
        (Wire(), [*JSON, (b"content-length", b"9" * 20)], BodyTooLarge),
        (Wire(), [], UnsupportedMediaType),
        (Wire(part(b"abc", True), GONE), None, ClientGone),
    ],
)
async def test_bodies_refused(wire: Wire, headers: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await wire.exchange(headers).body(4)


async def work_for_ever(exchange: Exchange, seconds: float) -> None:
    async with exchange.bounded(seconds, 0.0):
        await exchange.body(4)
        await asyncio.Event().wait()


async def test_the_deadline_ends_the_work() -> None:
    exchange = Wire(part(b"{}")).exchange()
    with pytest.raises(RequestTimedOut):
        await work_for_ever(exchange, 0.01)
    assert not exchange.gone


async def test_a_leaving_client_ends_the_work() -> None:
    exchange = Wire(part(b"{}"), GONE).exchange()
    with pytest.raises(ClientGone):
        await work_for_ever(exchange, 60.0)
    assert exchange.gone


async def test_time_outs_of_others_pass_through() -> None:
    exchange = Wire().exchange()
    with pytest.raises(TimeoutError):
        async with exchange.bounded(60.0, 0.0):
            raise TimeoutError
    assert not exchange.gone


async def test_a_closed_connection_is_a_client_gone() -> None:
    wire = Wire()
    exchange = wire.exchange()
    wire.broken = True
    with pytest.raises(ClientGone):
        await exchange.respond(200, b"{}")
    assert exchange.gone


async def test_stream_with_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEARTBEAT_S", 0.01)
    wire = Wire(part(b"{}"))
    exchange = wire.exchange()
    async with exchange.bounded(60.0, 0.0):
        await exchange.start_stream()
        await exchange.write(b"data: 1\n\n")
        while not any(message.get("body") == b": keep-alive\n\n" for message in wire.sent):
            await asyncio.sleep(0.001)
        wire.broken = True
        await asyncio.sleep(0.03)
        wire.broken = False
        await exchange.end(b"data: [DONE]\n\n")
    assert wire.sent[0]["status"] == 200
    assert wire.sent[-1] == {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False}


async def test_a_body_is_read_once() -> None:
    wire = Wire(part(b'{"a": ', more=True), part(b"1}"))
    exchange = wire.exchange()
    async with exchange.bounded(60, 0):
        assert await exchange.body(100) == b'{"a": 1}'
        assert await exchange.body(100) == b'{"a": 1}'


async def test_a_client_without_a_body_is_watched_too() -> None:
    wire = Wire(part(b""), GONE)
    exchange = wire.exchange([])

    async def stay() -> None:
        async with exchange.bounded(60, 0):
            exchange.watch()
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await stay()


async def test_what_is_sent_is_recorded_before_it_leaves() -> None:
    wire = Wire()
    exchange = wire.exchange()
    heard: list[tuple[str, int]] = []

    class Recorder:
        async def hear(self, message: Any) -> None:
            heard.append((message["type"], len(wire.sent)))

        def close(self) -> None: ...

    exchange.recorder = Recorder()
    await exchange.respond(200, b"{}")
    assert heard == [("http.response.start", 0), ("http.response.body", 1)]
