"""Row 15: who is nobody tries to be somebody: with forged tokens, keys that are none, headers, and hosts.

A key is also given to calls that would have the gateway ask another host, which listens.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.chaos.client import CHAT, chat, client
from tests.chaos.conftest import PROVIDER_PORT
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem
from tests.serve_apps.elsewhere import attempts, listening
from tests.serve_apps.gateway.oidc.provider import FakeProvider
from tests.serve_apps.gateway.oidc.test_persons import FORGED
from tests.serve_apps.gateway.test_attacks import NO_KEYS, ODD_HEADERS

ROUNDS = 10
MANGLED = 2_000
AT_ONCE = 8
REFUSED = {0, 400, 401, 431}
"""Statuses of whoever is nobody; 400, 431 and a closed connection, which is 0, where it is not even HTTP."""
Shown = list[tuple[bytes, bytes]]


def _bearer(shown: str | bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + (shown if isinstance(shown, bytes) else shown.encode())


def _nobodies(provider: FakeProvider, good: Sequence[str], mangled: int) -> Iterator[Shown]:
    """Headers that say who somebody is, and are wrong about it."""
    yield from ([_bearer(forge(provider))] for forge in FORGED.values())
    for shown in NO_KEYS:
        yield [_bearer(shown)]
        yield [(b"x-api-key", _bearer(shown)[1].removeprefix(b"Bearer "))]
    for odd in ODD_HEADERS:
        headers = [(name.encode(), value.encode()) for name, value in odd.items()]
        yield headers
        yield [*headers, _bearer("cgh_none")]
    drawn = random.Random(15)
    for number in range(mangled):
        text = list(good[number % len(good)])
        # Not the last characters of a token: two of their letters may stand for the same bits.
        at = drawn.randrange(len(text) - 20)
        text[at] = "a" if text[at] != "a" else "b"
        yield [_bearer("".join(text))]


async def _status(http: httpx.AsyncClient, request: httpx.Request) -> int:
    try:
        return (await http.send(request)).status_code
    except httpx.TransportError:
        return 0


async def _statuses(url: str, all_headers: Sequence[Shown]) -> list[tuple[Shown, list[int]]]:
    """What a call and a look are answered, of each."""
    left, told = iter(all_headers), []
    async with httpx.AsyncClient(base_url=url, timeout=60, verify=False) as http:

        async def work() -> None:
            for headers in left:
                requests = [
                    http.build_request("POST", CHAT, json=chat("Hi"), headers=headers),
                    http.build_request("GET", "/v1/models", headers=headers),
                ]
                told.append((headers, [await _status(http, request) for request in requests]))

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return told


def _smuggled(host: str, token: str) -> Iterator[bytes]:
    """Requests that two readers may cut in two places, with a call for the owner's key inside."""
    inside = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    for lengths in (
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        f"Content-Length: 4\r\nContent-Length: {len(inside)}\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 4\r\n",
    ):
        yield f"{head}{lengths}\r\n0\r\n\r\n".encode() + inside


async def _raw(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read(65_536)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def _provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().serving(PROVIDER_PORT) as serving:
        yield serving


async def _attack(system: RunningSystem, key: str) -> dict[str, Any]:
    async with _provider() as provider:
        good = [key, provider.token(org="acme")]
        known = await _statuses(system.url, [[_bearer(each)] for each in good])
        nobodies = [each for _ in range(times(ROUNDS)) for each in _nobodies(provider, good, 0)]
        nobodies += _nobodies(provider, good, times(MANGLED))
        told = await _statuses(system.url, nobodies)
    at = urlsplit(system.url)
    assert at.hostname is not None
    assert at.port is not None
    answers = [await _raw(at.hostname, at.port, each) for each in _smuggled(at.netloc, "cgh_none")]
    async with listening() as listener, client(system, key) as http:
        elsewhere = Counter[int]()
        for path, body in attempts("smollm2", "minilm", listener.url):
            elsewhere[(await http.post(path, json=body)).status_code] += 1
        asked = list(listener.asked)
    return {"known": known, "told": told, "smuggled": answers, "elsewhere": elsewhere, "asked": asked}


def test_nobody_is_let_in(system: RunningSystem) -> None:
    key, _ = system.key()
    found = asyncio.run(_attack(system, key))
    let_in = [each for each in found["told"] if not set(each[1]) <= REFUSED]
    smuggled = [answer for answer in found["smuggled"] if b" 200 " in answer or b" 5" in answer[:12]]
    report(
        15,
        "attacks on authentication",
        forged_and_mangled=len(found["told"]) * 2,
        let_in=len(let_in),
        smuggled=len(found["smuggled"]),
        smuggled_in=len(smuggled),
        calls_for_other_hosts=found["elsewhere"].total(),
        other_hosts_asked=len(found["asked"]),
        status_5xx=sum(count for status, count in found["elsewhere"].items() if status >= 500),
    )
    assert [statuses for _, statuses in found["known"]] == [[200, 200], [200, 200]], "nothing would be let in"
    assert let_in == []
    assert smuggled == []
    assert found["asked"] == []
    assert not any(status >= 500 for status in found["elsewhere"])
