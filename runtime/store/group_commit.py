"""Many callers, one round trip: the script calls of one turn of the event loop travel together.

    turn 1   reserve A, reserve B, settle C   ->  one batch of three
    turn 2   reserve D                        ->  waits for that batch, then goes with whatever came since

An idle store is asked at once, so a lone call waits for nobody; a busy one gets larger batches instead of
a longer queue of small ones. One batch is under way at a time.

A round trip costs both sides several times what a call in it does. So a call that nobody waits for lingers:
it goes with the next batch that somebody does wait for, or after `LINGER_S` by itself. Where more wait than
go into a batch, those that linger have a part of it: a backlog of settlements, as a store that was out leaves
behind, holds up no reservation, and is never held up by them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runtime.store.client import Reply, ScriptCall, Store
from runtime.store.errors import CommandFailed, StoreError, StoreUnavailable

MAX_BATCH = 64
"""Calls to a round trip: at some 50 µs of script each, far below the store's time-out."""
LINGERING_SHARE = 16
"""Of a batch, that calls which linger have at least, while others wait too."""
LINGER_S = 0.005
"""Longest that a lingering call waits for company."""
MAX_WAITING = 16_384
"""Calls that may wait; one more is refused, so that memory is bounded."""


@dataclass(slots=True)
class _Entry:
    call: ScriptCall
    reply: asyncio.Future[Reply]
    abandoned: Callable[[Reply], None] | None


class GroupCommit:
    """Batches script calls onto a store, for one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Entry] = deque()
        self._lingering: deque[_Entry] = deque()
        self._due = False
        """Whether somebody wants what waits to go now."""
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, call: ScriptCall, *, abandoned: Callable[[Reply], None] | None = None) -> Reply:
        """The reply of `call`. Raises `StoreUnavailable`, `CommandFailed`.

        A caller cancelled before its call was sent takes it along; one cancelled later leaves a reply
        that nobody reads, and `abandoned` is called with it.
        """
        reply = self.submit(call, abandoned=abandoned)
        try:
            return await reply
        except asyncio.CancelledError:
            # Cancelled between the arrival of the reply and our turn: the future holds it already.
            if abandoned is not None and not reply.cancelled() and reply.exception() is None:
                abandoned(reply.result())
            raise

    def submit(
        self, call: ScriptCall, *, abandoned: Callable[[Reply], None] | None = None, linger: bool = False
    ) -> asyncio.Future[Reply]:
        """The future reply of `call`, which is on its way whether or not anybody awaits it.

        With `linger` it may wait `LINGER_S` for company. Raises `StoreUnavailable` when too many calls wait.
        """
        queue = self._lingering if linger else self._waiting
        if len(queue) >= MAX_WAITING:
            raise StoreUnavailable(f"{MAX_WAITING} calls wait for the store already")
        loop = asyncio.get_running_loop()
        entry = _Entry(call, loop.create_future(), abandoned)
        queue.append(entry)
        if not linger:
            self._go()
        elif self._timer is None:
            self._timer = loop.call_later(LINGER_S, self._linger_no_more)
        return entry.reply

    def _linger_no_more(self) -> None:
        self._timer = None
        if self._lingering:
            self._go()

    def _go(self) -> None:
        self._due = True
        if self._sender is None:
            # A new task runs after all that is ready in this turn: they join its first batch.
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._due:
                batch = self._next_batch()
                if batch:
                    await self._round_trip(batch)
        except BaseException:
            # A fault of ours: nobody may be left waiting for ever.
            self._due = False
            self._fail_waiting(StoreUnavailable("the round trip to the store broke off"))
            raise
        finally:
            self._sender = None

    def _next_batch(self) -> list[_Entry]:
        """Those that linger first: what they free is there for those behind them."""
        lingering = min(len(self._lingering), max(LINGERING_SHARE, MAX_BATCH - len(self._waiting)), MAX_BATCH)
        waiting = min(len(self._waiting), MAX_BATCH - lingering)
        taken = [self._lingering.popleft() for _ in range(lingering)]
        taken += [self._waiting.popleft() for _ in range(waiting)]
        self._due = bool(self._waiting or self._lingering)
        return [entry for entry in taken if not entry.reply.cancelled()]

    async def _round_trip(self, batch: list[_Entry]) -> None:
        try:
            replies = await self._store.run_many([entry.call for entry in batch])
            for entry, reply in zip(batch, replies, strict=True):
                _deliver(entry, reply)
        except StoreUnavailable as error:
            _fail(batch, error)
            # Those behind have waited for this time-out too: a second one would double their bound.
            self._fail_waiting(error)
        except CommandFailed as error:
            _fail(batch, error)
        finally:
            _fail(batch, StoreUnavailable("the round trip to the store broke off"))

    def _fail_waiting(self, error: StoreError) -> None:
        for queue in (self._lingering, self._waiting):
            _fail(queue, error)
            queue.clear()


def _fail(entries: Iterable[_Entry], error: StoreError) -> None:
    """An exception of its own to each that has no reply yet: a shared one would gather every traceback."""
    for entry in entries:
        if not entry.reply.done():
            entry.reply.set_exception(type(error)(*error.args))


def _deliver(entry: _Entry, reply: Reply) -> None:
    if entry.reply.cancelled():
        if entry.abandoned is not None and not isinstance(reply, CommandFailed):
            entry.abandoned(reply)
    elif isinstance(reply, CommandFailed):
        entry.reply.set_exception(reply)
    else:
        entry.reply.set_result(reply)
