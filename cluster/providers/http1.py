"""HTTP/1.1 to one server, over connections that are kept: what calls to a provider need, and no more.

    post ─► a connection that idles, or a new one ─► head and body in one write
         ◄─ status and headers, then the body in parts as they come
    heard to the end ─► the connection idles for the next call        left before ─► it is closed

A general client took 90 µs of CPU for a call, ten times what the socket and the parser need, and a third of
all that a call to a provider cost beside the framework. The parser is llhttp, as in Node (`httptools`), and
addresses are tried as RFC 8305 says (`aiohappyeyeballs`). Redirects are not followed, cookies not kept,
proxies of the environment not used, and compressed answers not asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import aiohappyeyeballs
import httptools
from yarl import URL

CONNECT_S: Final = 5.0
IDLE_S: Final = 30.0
"""A connection that idled for longer is not used again: what lies between may have forgotten it."""
NEXT_ADDRESS_S: Final = 0.25
"""After this the next address of a name is tried beside the one before it."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of whatever is not the body."""
MAX_UNREAD_BYTES: Final = 256 * 1024
"""Of a body that its reader has not taken: then nothing more is read."""
USER_AGENT: Final = "cluster-graph-hybrid"


class HttpFailed(Exception):
    """Base of what goes wrong below HTTP's own status."""


class Unreachable(HttpFailed):
    """No connection came about."""


class BrokenOff(HttpFailed):
    """The connection ended, or what came over it was no HTTP."""


class Connection(asyncio.Protocol):
    """One connection, and the reply that comes over it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """Names in small letters; of one that comes twice, the last."""
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._parts: list[bytes] = []
        self._unread = 0
        self._head_bytes = 0
        self._asked = self._begun = self._complete = self._keeps = self._paused = False

    async def ask(self, request: bytes, until: float) -> None:
        """Sends a request. Returns with status and headers of the reply; the whole of it ends by the event
        loop's time `until`. Raises `TimeoutError`, `BrokenOff`."""
        self.status, self.headers, self._head_bytes = 0, {}, 0
        self._asked, self._begun, self._complete = True, False, False
        self._timer = self._loop.call_at(until, self._fail, TimeoutError())
        self._transport.write(request)
        while not self._begun:
            await self._news()

    async def part(self) -> bytes:
        """The next of the body, empty at its end. Raises `TimeoutError`, `BrokenOff`."""
        while not self._parts and not self._complete:
            await self._news()
        data = b"".join(self._parts)
        self._parts.clear()
        self._unread = 0
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return data

    def end(self) -> bool:
        """Nobody listens to the reply any more. Whether the connection can be used again; if not, it is
        closed."""
        if self._timer is not None:
            self._timer.cancel()
        usable = self._complete and self._keeps and self._error is None and not self._parts
        if not usable:
            self._transport.abort()
        self._asked, self.idle_since = False, self._loop.time()
        return usable

    def usable(self) -> bool:
        """Whether one that idles still can be."""
        rested = self._loop.time() - self.idle_since
        return self._error is None and rested < IDLE_S and not self._transport.is_closing()

    def close(self) -> None:
        self._transport.abort()

    async def _news(self) -> None:
        """Waits until something has come. Raises what went wrong."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._transport.abort()
        self._wake()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck typing only

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._fail(BrokenOff("the server spoke unasked"))
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenOff(f"the reply is not HTTP/1.1: {type(error).__name__}"))
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail(BrokenOff("the head of the reply is too large"))
        elif self._unread > MAX_UNREAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self._begun and not self._complete and error is None and self._error is None and self._ends_with():
            self._complete = True
        elif self._error is None:
            self._error = BrokenOff("the connection ended")
        self._wake()

    def _ends_with(self) -> bool:
        """Whether the body is one that ends with its connection."""
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else a trailer
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._begun = self.status >= 200
        if self._begun and self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise ValueError("compressed, unasked")

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._parts.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._begun:
            self._complete, self._keeps = True, self._parser.should_keep_alive()
        else:  # such as 103 Early Hints, which comes before the reply
            self.headers = {}


class Http1Client:
    """Posts to one server, over `connections` at once at most, for one event loop."""

    def __init__(self, url: str, headers: Mapping[str, str], connections: int) -> None:
        """`url` is what all paths are behind; `headers` go with every request.

        Raises `ValueError` for a user in the URL, and for what cannot be in a header.
        """
        place = URL(url)
        if place.user is not None or place.password is not None or not place.raw_host or not place.port:
            raise ValueError("the URL must name a host, and neither user nor password")
        self._host, self._port = place.raw_host, place.port
        self._tls = ssl.create_default_context() if place.scheme == "https" else None
        self._path = place.raw_path.rstrip("/")
        always = {"host": place.host_port_subcomponent or "", "user-agent": USER_AGENT, "accept": "*/*"}
        self._head = _lines(always | {"accept-encoding": "identity"} | dict(headers))
        self._room = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def post(self, path: str, body: bytes, seconds: float) -> AsyncIterator[Connection]:
        """The reply, which has to end within so many seconds.

        Raises `TimeoutError`, `Unreachable`, `BrokenOff`.
        """
        until = asyncio.get_running_loop().time() + seconds
        await self._enter(until)
        try:
            connection = self._rested() or await self._connect(until)
            try:
                head = b"POST %b%b HTTP/1.1\r\n" % (self._path.encode(), path.encode())
                await connection.ask(
                    b"%b%bcontent-length: %d\r\n\r\n%b" % (head, self._head, len(body), body), until
                )
                yield connection
            finally:
                if connection.end():
                    self._idle.append(connection)
        finally:
            self._room.release()

    def close(self) -> None:
        """Closes the connections that idle; the others close with their calls."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _enter(self, until: float) -> None:
        if self._room.locked():
            async with asyncio.timeout_at(until):
                await self._room.acquire()
        else:
            await self._room.acquire()

    def _rested(self) -> Connection | None:
        """The connection that has idled for the shortest time."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    async def _connect(self, until: float) -> Connection:
        loop = asyncio.get_running_loop()
        by = min(until, loop.time() + CONNECT_S)
        try:
            async with asyncio.timeout_at(by):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                reached = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=loop
                )
                reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                name = self._host if self._tls is not None else None
                _, connection = await loop.create_connection(
                    Connection, sock=reached, ssl=self._tls, server_hostname=name
                )
        except TimeoutError:
            if by == until:
                raise
            raise Unreachable("no connection in time") from None
        except OSError as error:
            raise Unreachable(type(error).__name__) from error
        return connection


def _lines(headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if not (name.isascii() and value.isascii() and (name + value).isprintable()):
            raise ValueError(f"the header {name!r} must be printable ASCII")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
