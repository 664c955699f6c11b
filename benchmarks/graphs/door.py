"""A door to the engine for other processes: lines of JSON over a Unix socket, as cheap as it can be.

    ──► {"id": 7, "tenant": "…", "prompt": "…", "max_tokens": 64}
    ◄── {"id": 7, "text": "…"}

Calls of a connection that is closed are cancelled, so that a process that dies leaves nothing in the engine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], Awaitable[str]]
"""The text for a call. Raises what becomes the call's `error`."""
LINE_BYTES = 2**20


@asynccontextmanager
async def open_door(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Serves until it is left."""
    server = await asyncio.start_unix_server(_Visitor(answer).attend, path, limit=LINE_BYTES)
    async with server:
        yield


class _Visitor:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                call = asyncio.create_task(self._reply(json.loads(line), writer))
                calls.add(call)
                call.add_done_callback(calls.discard)
        except ConnectionResetError:
            pass
        finally:
            for call in calls:
                call.cancel()
            writer.close()

    async def _reply(self, call: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        reply = {"id": call["id"], "text": await self._answer(call)}
        writer.write(json.dumps(reply).encode() + b"\n")
