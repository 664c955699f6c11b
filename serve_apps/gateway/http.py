"""One HTTP request and its response, over raw ASGI.

An `Exchange` knows its id, its deadline and whether its client is still there; the deadline and the client's
leaving end the work in the same way, by cancelling the `bounded` block:

    async with exchange.bounded():        RequestTimedOut | ClientGone
        body = await exchange.body(...)   from here on the client is watched
        await exchange.respond(...)       or start_stream, write..., end
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from serve_apps.gateway.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    GatewayError,
    Header,
    RequestTimedOut,
    UnsupportedMediaType,
)
from serve_apps.gateway.wording import OPENAI, Wording

Scope = MutableMapping[str, Any]
ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HEARTBEAT_S = 15.0
"""Silence on an event stream after which a heartbeat is sent."""

JSON_TYPE: Header = (b"content-type", b"application/json")
_STREAM_HEADERS: Sequence[Header] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_READ = frozenset(
    (
        *(b"accept", b"authorization", b"content-length", b"content-type", b"anthropic-version"),
        *(
            b"idempotency-key",
            b"last-event-id",
            b"x-api-key",
            b"x-request-id",
            b"x-request-timeout",
            b"x-tags",
        ),
    )
)
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_headers(scope: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The headers the gateway reads; no other header of a client has any effect."""
    return {name: value for name, value in scope["headers"] if name in _READ}


def request_ids(headers: Mapping[bytes, bytes]) -> tuple[str, bytes]:
    """Our own unique id, and the one to show: the client's if it is clean, else ours.

    The client's is never used inside: a repeated one would meet the reservation of an earlier call. Ours
    begins with the time, as RFC 9562's version 7: what is written down of calls is then written side by side.
    """
    own = (int(time.time() * 1000).to_bytes(6) + os.urandom(10)).hex()
    shown = headers.get(b"x-request-id", b"")
    return own, shown if _SAFE_ID.fullmatch(shown) else own.encode()


def timeout_of(headers: Mapping[bytes, bytes], default_s: float, max_s: float) -> float:
    """Seconds the request may take: `x-request-timeout`, at most `max_s`. Raises `BadRequest`."""
    raw = headers.get(b"x-request-timeout")
    if raw is None:
        return default_s
    try:
        wanted = float(raw)
    except ValueError:
        wanted = math.nan
    if not 0 < wanted < math.inf:
        raise BadRequest(
            "'x-request-timeout' must be a positive number of seconds.", param="x-request-timeout"
        )
    return min(wanted, max_s)


class Recorder(Protocol):
    """Hears what is sent to the client."""

    async def hear(self, message: ASGIMessage) -> None: ...

    def close(self) -> None:
        """Nothing more will be sent."""
        ...


class Exchange:
    """One request being answered."""

    __slots__ = (
        "_body",
        "_ended_by",
        "_heartbeat",
        "_limit",
        "_receive",
        "_send",
        "_sent_at",
        "_watcher",
        "added_headers",
        "broken_off",
        "deadline",
        "error_event",
        "gone",
        "headers",
        "id",
        "marks",
        "path",
        "query",
        "recorder",
        "seconds",
        "shown_id",
        "spent",
        "started",
        "streaming",
        "tags",
        "wording",
    )

    def __init__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, *, says_id: bool = True
    ) -> None:
        self._receive = receive
        self._send = send
        self._limit: asyncio.Timeout | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._body: bytes | None = None
        self._ended_by: GatewayError | None = None
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers = request_headers(scope)
        self.id, self.shown_id = request_ids(self.headers)
        self.added_headers: list[Header] = [(b"x-request-id", self.shown_id)] if says_id else []
        """Sent with the response, whatever it turns out to be."""
        self.seconds = 0.0
        """How long the request may take in all."""
        self.deadline = 0.0
        """Unix seconds."""
        self.broken_off: Callable[[GatewayError], bytes] | None = None
        """The last event of this stream where it breaks off, if that is not an error as such."""
        self.wording = OPENAI
        self.error_event = OPENAI.error_event
        """What precedes the data of an error on this stream."""
        self.started = False
        self.streaming = False
        self.gone = False
        self.spent = False
        """Whether the call has cost tokens, once it has ended."""
        self.tags: dict[str, str] = {}
        """What the body says of the call for its usage to be asked for by."""
        self.marks: dict[str, str] = {}
        """What we say of the call beside that."""
        self.recorder: Recorder | None = None

    def speak(self, wording: Wording) -> None:
        """From here on errors and heartbeats are worded so."""
        self.wording, self.error_event = wording, wording.error_event
        if wording.id_header is not None:
            self.added_headers.append((wording.id_header, self.shown_id))

    def error(self, answer: GatewayError) -> bytes:
        """The JSON of an error."""
        return self.wording.error(answer, self.shown_id.decode())

    @property
    def wants_events(self) -> bool:
        """Whether the client accepts server-sent events."""
        return b"text/event-stream" in self.headers.get(b"accept", b"")

    @asynccontextmanager
    async def bounded(self, seconds: float, now: float) -> AsyncIterator[None]:
        """Cancels the block when the time is over (`RequestTimedOut`), the client leaves (`ClientGone`) or
        it is broken off (whatever the reason is).

        `now` is the time as Unix seconds.
        """
        self.seconds, self.deadline = seconds, now + seconds
        limit = self._limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            if self.gone:
                raise ClientGone from None
            if self._ended_by is not None:
                raise self._ended_by from None
            raise RequestTimedOut(f"The request was not done within {seconds:g} seconds.") from None
        finally:
            self._limit = None
            for task in (self._watcher, self._heartbeat):
                if task is not None:
                    task.cancel()

    async def body(self, max_bytes: int) -> bytes:
        """The whole JSON body, however often it is asked for. From here on a client that leaves ends the
        `bounded` block.

        Raises `UnsupportedMediaType`, `BodyTooLarge`, `ClientGone`.
        """
        if self._body is not None:
            return self._body
        kind = self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        if kind != b"application/json":
            raise UnsupportedMediaType("Send the body as 'Content-Type: application/json'.")
        length = self.headers.get(b"content-length", b"0")
        if len(length) > 12 or (length.isdigit() and int(length) > max_bytes):
            raise _too_large(max_bytes)
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            more = message.get("more_body", False)
        self.watch()
        self._body = bytes(body)
        return self._body

    def watch(self) -> None:
        """From here on a client that leaves ends the `bounded` block. What it still sends is not read."""
        self._watcher = asyncio.create_task(self._watch())

    async def respond(self, status: int, body: bytes, headers: Sequence[Header] = (JSON_TYPE,)) -> None:
        """The whole response."""
        self.started = True
        length = (b"content-length", b"%d" % len(body))
        await self._transmit(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, length, *self.added_headers],
            }
        )
        await self._transmit({"type": "http.response.body", "body": body})

    async def start_stream(self) -> None:
        """Starts a response of server-sent events."""
        self.started = self.streaming = True
        headers = [*_STREAM_HEADERS, *self.added_headers]
        await self._transmit({"type": "http.response.start", "status": 200, "headers": headers})
        self._heartbeat = asyncio.create_task(self._beat())

    async def write(self, events: bytes) -> None:
        """Sends whole events, and waits while the client reads too slowly."""
        self._sent_at = asyncio.get_running_loop().time()
        await self._transmit({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, events: bytes = b"") -> None:
        """Sends the last events of a stream."""
        self.streaming = False
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        await self._transmit({"type": "http.response.body", "body": events, "more_body": False})

    async def forward(self, message: ASGIMessage) -> None:
        """Sends what another ASGI application answers, with our headers added."""
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", ()), *self.added_headers]
        await self._transmit(message)

    def break_off(self, reason: GatewayError) -> None:
        """Ends the `bounded` block with that error; nothing, where it is at its end."""
        self._ended_by = reason
        self._end_now()

    async def _transmit(self, message: ASGIMessage) -> None:
        if self.recorder is not None:
            await self.recorder.hear(message)
        try:
            await self._send(message)
        except OSError:
            # What ASGI servers raise for a connection that is closed.
            self.gone = True
            raise ClientGone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._end_now()

    def _end_now(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silence = loop.time() - self._sent_at
            if silence >= HEARTBEAT_S:
                with suppress(ClientGone):
                    await self.write(self.wording.heartbeat)
                silence = 0.0
            await asyncio.sleep(HEARTBEAT_S - silence)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
