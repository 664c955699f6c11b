"""Calls for tests, with the fields that a test does not care about filled in."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cluster.interface import Batch
from cluster.messages import Delta, Embed, Finish, Generate, Message, Usage

LATER_S = 120.0


def chat(text: str = "Hello", **fields: Any) -> Generate:
    """A chat of one user message."""
    return generate(messages=[Message("user", text)], **fields)


def generate(**fields: Any) -> Generate:
    defaults: dict[str, Any] = {
        "request_id": "r",
        "model": "m",
        "max_tokens": 32,
        "deadline": time.time() + LATER_S,
    }
    return Generate(**(defaults | fields))


def embed(*texts: str, **fields: Any) -> Embed:
    defaults: dict[str, Any] = {"request_id": "r", "model": "m", "deadline": time.time() + LATER_S}
    return Embed(**(defaults | fields), texts=[*texts])


async def batches_of(batches: AsyncGenerator[Batch, None]) -> list[Batch]:
    async with aclosing(batches):
        return [batch async for batch in batches]


async def events_of(batches: AsyncGenerator[Batch, None]) -> Batch:
    return [event for batch in await batches_of(batches) for event in batch]


async def keep(batches: AsyncGenerator[Batch, None], kept: Batch) -> None:
    """Reads into `kept`, which holds what came when reading ends with an error."""
    async with aclosing(batches):
        async for batch in batches:
            kept.extend(batch)


def text_of(events: Batch, index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == index)


def finishes_of(events: Batch) -> dict[int, str]:
    return {event.index: event.reason for event in events if isinstance(event, Finish)}


def usage_of(events: Batch) -> Usage:
    """The one `Usage`, which is last."""
    [usage] = [event for event in events if isinstance(event, Usage)]
    assert events[-1] is usage
    return usage
