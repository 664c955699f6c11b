"""Chats over bare connections: a thousand at once cost the client little, where a library's client is what
gives up first."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.chaos.gateway_process import DECIDED
from tests.serve_apps.conftest import CHAT

CALL_S = 120.0
TEXT = "one two three"


@dataclass(frozen=True)
class Told:
    """One call, and its answer."""

    gateway: int
    asked: float
    """As `time.monotonic` has it, as all times here."""
    heard: float
    decided_s: float
    status: int
    tokens: int
    retry_after: bool


class Line:
    """A connection to a gateway, for one call after the other; far cheaper than a whole client."""

    def __init__(self, number: int, url: str, token: str, max_tokens: int) -> None:
        self._number = number
        self._parts = urlsplit(url)
        chat = {"model": CHAT, "messages": [{"role": "user", "content": TEXT}], "max_tokens": max_tokens}
        body = json.dumps(chat).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._parts.netloc}\r\nauthorization: Bearer "
            f"{token}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self) -> Told:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        reader, writer = self._streams
        asked = time.monotonic()
        async with asyncio.timeout(CALL_S):
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            headers = {name: value.strip() for name, _, value in lines}
            body = await reader.readexactly(int(headers[b"content-length"]))
        heard = time.monotonic()
        status = int(head[9:12])
        tokens = json.loads(body)["usage"]["total_tokens"] if status == 200 else 0
        decided_s = float(headers[DECIDED])
        return Told(self._number, asked, heard, decided_s, status, tokens, b"retry-after" in headers)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
