"""Clients that are slow on purpose: with their headers, with their bodies, with reading."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

Kind = Literal["headers", "body", "reader"]
KINDS: Sequence[Kind] = ("headers", "body", "reader")
BUFFER_BYTES = 2_048
"""That a slow reader takes before the server has to wait."""


@asynccontextmanager
async def slow_clients(
    host: str, port: int, token: str, body: object, count: int, every_s: float
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """So many of all kinds, connected, each sending a byte or reading a few every so often."""
    ready = [asyncio.Event() for _ in range(count)]
    raw = json.dumps(body).encode()
    tasks = [
        asyncio.create_task(_slow(KINDS[n % len(KINDS)], host, port, token, raw, every_s, ready[n]))
        for n in range(count)
    ]
    try:
        for each in ready:
            await each.wait()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _slow(
    kind: Kind, host: str, port: int, token: str, body: bytes, every_s: float, ready: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as made:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        try:
            await loop.sock_connect(made, (host, port))
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            whole = head + body
            at_once = {"headers": 20, "body": len(head) + 5, "reader": len(whole)}[kind]
            await loop.sock_sendall(made, whole[:at_once])
            ready.set()
            for at in range(at_once, len(whole)):
                await asyncio.sleep(every_s)
                await loop.sock_sendall(made, whole[at : at + 1])
            while await loop.sock_recv(made, 16):
                await asyncio.sleep(every_s)
        except OSError:
            pass  # whoever serves had enough of it, which it may
        finally:
            ready.set()
