"""An engine's work under its call's deadline, its surprises turned into errors of ours.

Everything that holds an engine calls it through here, so that no engine has to watch the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

import structlog

from cluster.errors import ClusterError, DeadlineExceeded, EngineFailed
from cluster.interface import Batch, Engine
from cluster.messages import Embed, Embeddings, Generate

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def generate(engine: Engine, call: Generate) -> AsyncGenerator[Batch, None]:
    """The engine's batches until the deadline. Closing this, or its end, aborts the call in the engine.

    Raises `DeadlineExceeded`, what the engine raises on purpose, and `EngineFailed` for anything else.
    """
    _refuse_late(call)
    async with aclosing(engine.generate(call)) as batches:
        while (batch := await _in_time(anext(batches, None), call)) is not None:
            yield batch


async def embed(engine: Engine, call: Embed) -> Embeddings:
    """The engine's vectors. Raises as `generate` does."""
    _refuse_late(call)
    return await _in_time(engine.embed(call), call)


def _refuse_late(call: Generate | Embed) -> None:
    # A time-out cannot tell: an engine that never waits would be done before it fires.
    if time.time() >= call.deadline:
        raise _late()


async def _in_time(work: Awaitable[T], call: Generate | Embed) -> T:
    limit = asyncio.timeout(max(0.0, call.deadline - time.time()))
    try:
        async with limit:
            return await work
    except ClusterError:
        if limit.expired():  # vLLM takes the cancellation for a client that left, and says so in an error
            raise _late() from None
        raise
    except Exception as error:
        if limit.expired():
            raise _late() from None
        # The text stays in the log: it may quote the prompt.
        log.exception("engine_failed", request_id=call.request_id, model=call.model)
        raise EngineFailed(f"the engine of {call.model} failed: {type(error).__name__}") from error


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the call's deadline passed")
