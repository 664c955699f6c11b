from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.providers import http1
from cluster.providers.http1 import BrokenOff, Http1Client, Unreachable
from tests.tls import self_signed

LONG_S = 30.0
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers every request as it is told, and remembers them."""

    def __init__(self, *answers: bytes | Answer, close: bool = False) -> None:
        self._answers = answers
        self._close = close
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"http{'s' if tls else ''}://localhost:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(self.requests[-1], writer)
                if self._close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def asked(client: Http1Client, body: bytes = b"{}", seconds: float = LONG_S) -> tuple[int, bytes]:
    async with client.post("/chat", body, seconds) as reply:
        parts = []
        while part := await reply.part():
            parts.append(part)
        return reply.status, b"".join(parts)


def client_of(server: Server, connections: int = 8, **headers: str) -> Http1Client:
    return Http1Client(server.url, headers, connections)


@asynccontextmanager
async def answering(
    *answers: bytes | Answer, close: bool = False, connections: int = 8
) -> AsyncIterator[tuple[Server, Http1Client]]:
    async with Server(*answers, close=close).running() as server:
        client = client_of(server, connections)
        yield server, client
        client.close()


async def test_a_request_says_all_that_it_must_and_nothing_else() -> None:
    async with Server(OK).running() as server:
        client = client_of(server, authorization="Bearer k")
        assert await asked(client, b'{"a":1}') == (200, b"ok")
        client.close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    line, *headers = head.split(b"\r\n")
    assert line == b"POST /v1/chat HTTP/1.1"
    assert dict(header.split(b": ", 1) for header in headers) == {
        b"host": server.url.split("/")[2].encode(),
        b"user-agent": b"cluster-graph-hybrid",
        b"accept": b"*/*",
        b"accept-encoding": b"identity",
        b"authorization": b"Bearer k",
        b"content-length": b"7",
    }


REPLIES = {
    "by length": (OK, b"ok"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"ok",
    ),
    "with a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n",
        b"ok",
    ),
    "after hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, b"ok"),
}


@pytest.mark.parametrize(("reply", "body"), REPLIES.values(), ids=REPLIES.keys())
async def test_replies_of_every_form_are_read_and_their_connection_is_used_again(
    reply: bytes, body: bytes
) -> None:
    async with answering(reply) as (server, client):
        for _ in range(3):
            assert await asked(client) == (200, body)
        assert server.connections == 1


async def test_a_reply_may_end_with_its_connection() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True) as (server, client):
        assert [await asked(client), await asked(client)] == [(200, b"all of it")] * 2
        assert server.connections == 2


async def test_parts_come_as_they_are_sent() -> None:
    more = asyncio.Event()

    async def slowly(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with answering(slowly) as (_, client), client.post("/chat", b"{}", LONG_S) as reply:
        assert await reply.part() == b"one"
        more.set()
        assert await reply.part() + await reply.part() == b"two"
        assert await reply.part() == b""


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "cut in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
    "cut in a chunk": CHUNKED + b"9\r\ncut",
    "nothing": b"",
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_reply_is_refused_and_its_connection_not_used_again(reply: bytes) -> None:
    async with answering(reply, OK, close=True) as (server, client):
        with pytest.raises(BrokenOff):
            await asked(client)
        assert await asked(client) == (200, b"ok")
        assert server.connections == 2


async def test_a_head_without_end_is_not_read_for_ever() -> None:
    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"a" * 4000 + b"\r\n")
            await writer.drain()

    async with answering(flood) as (_, client):
        with pytest.raises(BrokenOff, match="head of the reply is too large"):
            await asked(client)


async def test_a_reader_that_is_slow_holds_the_server_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_UNREAD_BYTES", 64 * 1024)
    size, sent = 64 * 1024 * 1024, 0

    async def much(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(1024 * 1024))
            await writer.drain()
            sent += 1024 * 1024

    async with answering(much) as (_, client), client.post("/chat", b"{}", LONG_S) as reply:
        first = await reply.part()
        for _ in range(2000):
            await asyncio.sleep(0)
        assert sent < size
        rest = len(first)
        while part := await reply.part():
            rest += len(part)
        assert rest == size


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    async with answering(OK, close=True) as (server, client):
        for _ in range(3):
            assert await asked(client) == (200, b"ok")
            async with asyncio.timeout(LONG_S):
                while client._idle and client._idle[0].usable():
                    await asyncio.sleep(0.001)
        assert server.connections == 3


async def test_a_connection_over_which_a_server_speaks_unasked_is_not_used_again() -> None:
    async with answering(OK) as (server, client):
        await asked(client)
        server.writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        async with asyncio.timeout(LONG_S):
            while client._idle[0].usable():
                await asyncio.sleep(0.001)
        assert await asked(client) == (200, b"ok")
        assert server.connections == 2


async def test_a_second_reply_is_nobodys() -> None:
    async with answering(OK + OK.replace(b"ok", b"no")) as (server, client):
        assert [await asked(client), await asked(client)] == [(200, b"ok")] * 2
        assert server.connections == 2


async def test_a_connection_that_idled_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(OK) as (server, client):
        await asked(client)
        monkeypatch.setattr(http1, "IDLE_S", 0.0)
        await asked(client)
        assert server.connections == 2


async def test_a_reply_that_is_left_closes_its_connection() -> None:
    left = asyncio.Event()

    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
        try:
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.001)
        finally:
            left.set()

    async with answering(endless, OK) as (server, client):
        async with client.post("/chat", b"{}", LONG_S) as reply:
            await reply.part()
        async with asyncio.timeout(LONG_S):
            await left.wait()
        assert await asked(client) == (200, b"ok")
        assert server.connections == 2


async def test_so_many_connections_and_no_more() -> None:
    asked_all, go = asyncio.Semaphore(0), asyncio.Event()

    async def wait(_: bytes, writer: asyncio.StreamWriter) -> None:
        asked_all.release()
        await go.wait()
        writer.write(OK)

    async with answering(wait, connections=2) as (server, client):
        calls = [asyncio.create_task(asked(client)) for _ in range(6)]
        for _ in range(2):
            await asked_all.acquire()
        with pytest.raises(TimeoutError):
            await asked(client, seconds=0.05)
        go.set()
        assert await asyncio.gather(*calls) == [(200, b"ok")] * 6
        assert server.connections == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"])
async def test_a_reply_that_does_not_end_in_time_ends_with_a_time_out(said: bytes) -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await asyncio.sleep(LONG_S)

    async with answering(silent) as (_, client):
        with pytest.raises(TimeoutError):
            await asked(client, seconds=0.05)


async def test_the_time_is_kept_whichever_task_reads() -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await asyncio.sleep(LONG_S)

    async with answering(silent) as (_, client), client.post("/chat", b"{}", 0.2) as reply:
        assert await asyncio.create_task(reply.part()) == b"part"
        with pytest.raises(TimeoutError):
            await asyncio.create_task(reply.part())


@pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://nowhere.invalid/v1"])
async def test_a_server_that_is_not_there_is_not_reached(url: str) -> None:
    with pytest.raises(Unreachable):
        await asked(Http1Client(url, {}, 1))


async def test_only_a_server_that_somebody_we_trust_vouches_for_is_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, tmp_path / "key.pem")
    async with Server(OK).running(tls) as server:
        with pytest.raises(Unreachable):
            await asked(client_of(server))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = client_of(server)
        assert [await asked(client), await asked(client)] == [(200, b"ok")] * 2
        client.close()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://user:secret@localhost/v1", {}),
        ("http://user@localhost/v1", {}),
        ("http://localhost/v1", {"authorization": "Bearer k\r\nx-evil: 1"}),
        ("http://localhost/v1", {"x\r\nevil": "1"}),
        ("http://localhost/v1", {"authorization": "Bearer é"}),
    ],
)
def test_what_cannot_be_sent_safely_is_refused_at_once(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"URL must name a host|printable ASCII") as caught:
        Http1Client(url, headers, 1)
    assert "secret" not in str(caught.value)
    assert "evil: 1" not in str(caught.value)
