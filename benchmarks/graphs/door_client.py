"""The other side of the door, without anything of ours: peers import it too."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

LINE_BYTES = 2**20


class Door:
    """One connection, any number of calls at the same time. Open it with `enter`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = count()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def enter(cls, path: str) -> Door:
        return cls(*await asyncio.open_unix_connection(path, limit=LINE_BYTES))

    async def ask(self, tenant: str, prompt: str, max_tokens: int) -> str:
        """The answer. Raises `ConnectionError` when the door closes before."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        call = {"id": number, "tenant": tenant, "prompt": prompt, "max_tokens": max_tokens}
        self._writer.write(json.dumps(call).encode() + b"\n")
        return await self._waiting[number]

    async def leave(self) -> None:
        self._writer.close()
        await self._listening

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            reply: dict[str, Any] = json.loads(line)
            self._waiting.pop(reply["id"]).set_result(reply["text"])
        for waiting in self._waiting.values():
            waiting.set_exception(ConnectionError("the door has closed"))
