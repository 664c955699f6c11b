"""Bodies that begin before it is known which one is wanted.

    router  choose ────────► large          without: choose ────► large ─────────►
            large  ─────────────────►
            small  ────────► dropped        its calls end in the engines; what they cost is lost

A router begins them itself. A branch starts when its conditions are known, and takes over those of its cases
that have begun by then (`runtime.executor.early`).

Time is bought with tokens: worth it while the engines have room, and so not done under load. Nor where the
budget of the run could not pay for it all, nor with a body whose text would leave at once: nobody could take
that back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from runtime.cache.counts import Counts
from runtime.executor.kinds.kind import NodeCall, Passed

BUSY_CALLS = 8
"""Calls of this runner at one model from which nothing more is begun there on the chance."""


class Candidate(NamedTuple):
    """A body without side effects."""

    key: str
    models: frozenset[str]
    """That it may call."""
    tokens: int
    """Most that it uses."""
    streams: bool
    """Whether its text leaves as it is written, in runs that want that."""


def may_begin(
    candidates: Sequence[Candidate], load: Callable[[str], int], tokens_left: int | None, *, stream: bool
) -> tuple[str, ...]:
    """The keys of those that may begin ahead.

    `load` is how many calls go on at a model, `tokens_left` what the run may still owe.
    """
    fit = [
        each
        for each in candidates
        if not (stream and each.streams) and all(load(model) < BUSY_CALLS for model in each.models)
    ]
    if tokens_left is not None and sum(each.tokens for each in fit) > tokens_left:
        return ()
    return tuple(each.key for each in fit)


def begin(call: NodeCall, key: str) -> asyncio.Task[Passed]:
    """Runs a body that is run once at most."""

    async def run() -> Passed:
        return await call.run(key, {}, f".{key}")

    return asyncio.create_task(run())


class Ahead:
    """The bodies of one call that run before one is taken. All others have ended when it is left."""

    def __init__(self, call: NodeCall, counts: Counts, kind: str, *, known: bool) -> None:
        """`known`: whether it is known already which one will be taken, so that none is begun here."""
        self._call = call
        self._counts = counts
        self._kind = kind
        self._keys = () if known else call.ahead
        self._running: dict[str, asyncio.Task[Passed]] = {}

    async def __aenter__(self) -> Ahead:
        self._running = self._call.take_begun() | {key: begin(self._call, key) for key in self._keys}
        return self

    async def take(self, key: str) -> Passed:
        """What the body comes to, whether or not it has begun. Drops all others. Raises what it raises."""
        if not self._running:
            return await self._call.run(key, {}, f".{key}")
        taken = self._running.pop(key, None) or begin(self._call, key)
        try:
            await self._drop()
            return await taken
        finally:
            await _end([taken])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()

    async def _drop(self) -> None:
        dropped, self._running = self._running, {}
        await _end(list(dropped.values()))
        for key in dropped:
            lost = self._call.dropped(f".{key}")
            self._counts.add("lost_tokens", self._kind, lost.total_tokens)


async def _end(tasks: Sequence[asyncio.Task[Passed]]) -> None:
    """Cancels them, and waits until their calls have ended in the engines. Their failures are nobody's."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
