"""Calls as clients make them, and what they are told: to the last byte, and whether the end was clean."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.system import RunningSystem

CHAT = "/v1/chat/completions"
CALL_TIMEOUT_S = 120.0


@dataclass
class Told:
    """What a client was told of one call."""

    sent: float
    """When it was sent, as are all times here: `time.monotonic`."""
    prompt: str = ""
    status: int = 0
    """0 while nothing has come."""
    pieces: list[str] = field(default_factory=list)
    """Text, as it came."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Of a run that is streamed."""
    usage: dict[str, int] | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    """Whether it ended as a whole answer does."""
    cut: str = ""
    """The connection ended before the answer did; why."""
    ended: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    """Of an answer in one piece."""

    @property
    def started(self) -> bool:
        return bool(self.pieces)

    @property
    def tokens(self) -> int:
        """What the answer says that it used."""
        if self.usage is None:
            return 0
        return self.usage["prompt_tokens"] + self.usage["completion_tokens"]


@asynccontextmanager
async def client(system: RunningSystem, key: str, connections: int = 200) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
    # Loading certificates that nobody needs would take longer than a call.
    async with httpx.AsyncClient(
        base_url=system.url, headers=headers, timeout=CALL_TIMEOUT_S, limits=limits, verify=False
    ) as made:
        yield made


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": [{"role": "user", "content": text}], **fields}


async def post(http: httpx.AsyncClient, path: str, body: dict[str, Any], **headers: str) -> Told:
    """An answer in one piece."""
    told = Told(time.monotonic())
    try:
        answer = await http.post(path, json=body, headers=headers)
    except httpx.TransportError as error:
        told.cut = type(error).__name__
    else:
        told.status, told.headers = answer.status_code, dict(answer.headers)
        _read_whole(told, answer)
    told.ended = time.monotonic()
    return told


def _read_whole(told: Told, answer: httpx.Response) -> None:
    try:
        told.body = answer.json()
    except ValueError:
        told.error = {"message": answer.text[:200], "code": None}
        return
    if not answer.is_success:
        told.error = told.body["error"]
        return
    told.done, told.usage = True, told.body.get("usage")


async def stream(
    http: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    told: Told | None = None,
    **headers: str,
) -> Told:
    """An answer as it comes, put into `told`."""
    told = told or Told(0.0)
    told.sent = time.monotonic()
    sent = {**body, "stream": True}
    if path == CHAT:
        sent["stream_options"] = {"include_usage": True}
    try:
        async with http.stream("POST", path, json=sent, headers=headers) as answer:
            told.status, told.headers = answer.status_code, dict(answer.headers)
            if not answer.is_success:
                await answer.aread()
                _read_whole(told, answer)
            else:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        _read(told, line[6:])
    except httpx.TransportError as error:
        told.cut = type(error).__name__
    told.ended = time.monotonic()
    return told


def _read(told: Told, data: str) -> None:
    if data == "[DONE]":
        told.done = True
        return
    event: dict[str, Any] = json.loads(data)
    if "error" in event:
        told.error = event["error"]
    elif "type" in event:
        _read_run(told, event)
    else:
        told.usage = event.get("usage") or told.usage
        told.pieces += [text for choice in event["choices"] if (text := choice["delta"].get("content"))]


def _read_run(told: Told, event: dict[str, Any]) -> None:
    told.events.append(event)
    match event["type"]:
        case "node_delta":
            told.pieces.append(event["text"])
        case "run_finished":
            told.done, told.usage = True, event["usage"]
        case "run_failed":
            told.error, told.usage = event["failure"], event["usage"]
