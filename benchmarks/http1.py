"""Just enough of an HTTP/1.1 client to know where an answer ends.

Content-Length or chunked, one request at a time on a kept connection: that keeps the load generator
several times cheaper than the servers it measures.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast

import msgspec

from benchmarks.scenario import HttpRequest

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)


class Answer(msgspec.Struct):
    """One response as it arrives."""

    status: int
    body: bytes
    first_byte: float
    """Clock reading of the first body byte."""
    close: bool


class ResponseParser:
    """Cuts a byte stream into HTTP/1.1 responses. One response at a time: no pipelining."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: bytes | None = None
        self._first_byte = 0.0
        self._body = bytearray()

    def feed(self, data: bytes, now: float) -> Answer | None:
        """Take more bytes; the whole answer when it is complete.

        Raises ValueError where an answer has neither a length nor chunks, or bytes follow its end.
        """
        self._buffer += data
        if self._head is None and not self._take_head():
            return None
        if self._buffer and not self._first_byte:
            self._first_byte = now
        if not self._take_body():
            return None
        head = self._head or b""
        if self._buffer:
            raise ValueError("bytes after the end of the answer")
        answer = Answer(
            int(head[9:12]), bytes(self._body), self._first_byte or now, _CLOSE.search(head) is not None
        )
        self._head, self._first_byte = None, 0.0
        self._body.clear()
        return answer

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._head = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 4]
        return True

    def _take_body(self) -> bool:
        """Move body bytes out of the buffer; whether the body is complete."""
        head = self._head or b""
        length = _LENGTH.search(head)
        if length is not None:
            return self._take(int(length.group(1)) - len(self._body))
        if _CHUNKED.search(head) is None:
            raise ValueError("an answer with neither a length nor chunks")
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                return False
            size = int(self._buffer[:line_end].split(b";")[0], 16)
            if len(self._buffer) < line_end + size + 4:
                return False
            self._body += self._buffer[line_end + 2 : line_end + 2 + size]
            del self._buffer[: line_end + size + 4]
            if size == 0:
                return True

    def _take(self, missing: int) -> bool:
        self._body += self._buffer[:missing]
        taken = min(missing, len(self._buffer))
        del self._buffer[:taken]
        return taken == missing


class Connection(asyncio.Protocol):
    """One client of the closed loop."""

    def __init__(self) -> None:
        self._parser = ResponseParser()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck typing only

    def data_received(self, data: bytes) -> None:
        waiting = self._answer
        if waiting is None or waiting.done():
            return
        try:
            answer = self._parser.feed(data, time.perf_counter())
        except ValueError as error:
            waiting.set_exception(error)
            return
        if answer is not None:
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    async def ask(self, wire: bytes, timeout_s: float) -> Answer:
        """Send the request and wait for its answer. Raises OSError, ValueError or TimeoutError."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._answer = waiting
        timer = loop.call_later(timeout_s, _expire, waiting)
        self._transport.write(wire)
        try:
            return await waiting
        finally:
            timer.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _expire(waiting: asyncio.Future[Answer]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError("no answer in time"))


def wire_bytes(request: HttpRequest) -> bytes:
    """The request as it goes over the socket."""
    headers = {
        "Host": f"{request.host}:{request.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(request.body)),
        **request.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {request.path} HTTP/1.1\r\n{lines}\r\n".encode() + request.body
