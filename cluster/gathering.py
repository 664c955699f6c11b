"""Items of all callers gathered into batches, in the fair order of `cluster.admission`.

    caller ─► offer ─► [a] [b] [a] [c] ─► batch ─► work ─► every caller its own

While a batch is worked at the next one gathers. How large it becomes is learned
(`cluster.admission.batches`). What an item is, and its size, is for those to say who do the work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from time import perf_counter_ns
from typing import Generic, TypeVar

from cluster.admission.batches import Service
from cluster.admission.queue import AdmissionQueue, Ask, Capacity, Ticket
from cluster.engines.gate import late
from cluster.errors import ClusterError, EngineFailed
from cluster.messages import AdmissionState

ItemT = TypeVar("ItemT")
MadeT = TypeVar("MadeT")

MOST_ITEMS = 256
"""Of a batch."""
SLACK_SHARE = 0.25
"""Of the time that a call has left, which a batch with it may take."""
MOST_WAIT_S = 0.02
"""For a batch to fill."""


class Place(Generic[ItemT, MadeT]):
    """One item, from its offer to what becomes of it."""

    __slots__ = ("item", "made")

    def __init__(self, item: ItemT) -> None:
        self.item = item
        self.made: asyncio.Future[MadeT] = asyncio.get_running_loop().create_future()
        """Done too when nobody waits for it any more."""

    def end(self, made: MadeT | ClusterError) -> bool:
        """Says what became of it. Whether somebody still waited for that."""
        if self.made.done():
            return False
        if isinstance(made, ClusterError):
            self.made.set_exception(made)
        else:
            self.made.set_result(made)
        return True


Work = Callable[[Sequence[Place[ItemT, MadeT]]], Awaitable[int | None]]
"""Works at a batch and ends every place of it. The size of what took so long; None where nothing is to be
learned from it. Raises nothing."""


class Gatherer(Generic[ItemT, MadeT]):
    """The queue in front of one engine or function, and the task that feeds it while anything waits."""

    def __init__(self, work: Work[ItemT, MadeT], service: Service, *, waiting: int) -> None:
        """`waiting`: items that may wait."""
        self._do = work
        self._service = service
        self._waiting = waiting
        self._queue = AdmissionQueue(self._room(1))
        self._work: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._last = 0
        """Items of the last batch."""

    def state(self) -> AdmissionState:
        return self._queue.state(time.time())

    async def made(self, items: Iterable[tuple[ItemT, Ask]], deadline: float) -> list[MadeT]:
        """What became of the items of one call, from whichever batches, in order.

        Args:
            items: each with what it asks; `prompt_tokens` is its size.
            deadline: Unix seconds.

        Raises the `ClusterError` of the first item that has failed, `Overloaded` where there is no room for
        all, and `DeadlineExceeded`. What waits of a call that is cancelled is not worked at any more.
        """
        tickets: list[Ticket] = []
        try:
            tickets.extend(self._offer(*each) for each in items)  # keeps those before one is refused
            self._more.set()
            if self._work is None or self._work.done():
                # It outlives this call, and so takes nothing of what is known of that.
                self._work = asyncio.create_task(self._run(), context=Context())
            async with asyncio.timeout(max(0.0, deadline - time.time())):
                return [await ticket.owner.made for ticket in tickets]
        except TimeoutError:
            raise late() from None
        finally:
            for ticket in tickets:
                self._leave(ticket)

    def _offer(self, item: ItemT, ask: Ask) -> Ticket:
        ticket = self._queue.offer(ask, time.time())
        ticket.owner = Place[ItemT, MadeT](item)
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        """The call has gone: what of it waits is not worked at any more."""
        if ticket.state == "waiting":
            self._queue.end(ticket, time.time())
        made: asyncio.Future[MadeT] = ticket.owner.made
        if made.done() and not made.cancelled():
            made.exception()  # of a part whose call has failed by another one
        made.cancel()

    async def _run(self) -> None:
        while self._queue.waiting:
            await self._fill()
            now = time.time()
            following = self._queue.following(now)
            left = 0.0 if following is None else following.ask.deadline - now
            self._queue.capacity = self._room(self._service.size_within(SLACK_SHARE * left))
            batch = []
            for ticket in self._queue.admit(now):
                if ticket.state == "late":
                    ticket.owner.end(late())
                else:
                    batch.append(ticket)
            if batch:
                await self._work_at(batch)

    async def _fill(self) -> None:
        """Waits for those whose last calls were in one batch, at most for what a batch costs beside its
        units: clients that ask again come back together, and the first of them would be alone in one."""
        if self._queue.waiting >= self._last:
            return
        try:
            async with asyncio.timeout(min(self._service.line[0], MOST_WAIT_S)):
                while self._queue.waiting < self._last:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return

    async def _work_at(self, batch: list[Ticket]) -> None:
        began = perf_counter_ns()
        try:
            size = await self._do([ticket.owner for ticket in batch])
            if size is not None:
                self._service.learn(size, (perf_counter_ns() - began) / 1e9)
        finally:
            self._last = len(batch)
            now = time.time()
            for ticket in batch:
                self._queue.end(ticket, now)
                ticket.owner.end(EngineFailed("the batch was given up before it was done"))

    def _room(self, size: int) -> Capacity:
        return Capacity(MOST_ITEMS, kv_tokens=size, waiting=self._waiting)
