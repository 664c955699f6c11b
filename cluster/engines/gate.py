"""Where calls wait for their turn at an engine: `cluster.admission` with a clock and futures.

    call ─► enter ─► engine ─► observe, observe, ... ─► leave
              │ room: at once, without giving up the event loop
              └ none: until another call leaves, or this one's deadline

An engine that can say how far each of its calls is (`interface.Watched`) is asked before each decision, so
that a reply that is not streamed is charged while it is made, as one that is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from cluster.admission.queue import AdmissionQueue, Ask, Capacity, Ticket
from cluster.errors import DeadlineExceeded
from cluster.interface import Batch, Watched
from cluster.messages import AdmissionState, Embed, Embeddings, Generate, Usage

LOOK_S = 0.02
"""How soon it is seen that a prompt was read, while others wait for that."""
CHARS_PER_TOKEN = 4
"""Of a prompt that nobody has counted."""
SMOOTHING = 0.05


class Gate:
    """The one in front of one engine."""

    def __init__(self, capacity: Capacity, watched: Watched | None = None) -> None:
        """`watched`: the engine, where it tells how far its calls are."""
        self._queue = AdmissionQueue(capacity)
        self._watched = watched
        self._unseen: dict[str, Ticket] = {}
        """In the engine, by request id: calls whose output is not seen before its end."""
        self._used_share = 1.0
        """Part of `max_tokens` that calls use."""
        self._looking: asyncio.TimerHandle | None = None

        self.weights: Mapping[str, float] = {}
        """Of tenants; 1 for those that are not in it."""

    def state(self) -> AdmissionState:
        return self._queue.state(time.time())

    async def through(
        self, call: Generate, make: Callable[[Generate], AsyncGenerator[Batch, None]]
    ) -> AsyncGenerator[Batch, None]:
        """The batches that `make` gives, begun when it is the call's turn. Raises as `enter` and they do."""
        ticket = await self.enter(call)
        produced, done = 0, False
        try:
            async with aclosing(make(call)) as batches:
                async for batch in batches:
                    last = batch[-1]
                    done = isinstance(last, Usage)
                    produced = last.completion_tokens if isinstance(last, Usage) else produced + len(batch)
                    self.observe(ticket, produced)
                    yield batch
        finally:
            self.leave(ticket, call, done=done)

    async def embedded(self, call: Embed, make: Callable[[Embed], Awaitable[Embeddings]]) -> Embeddings:
        """What `make` gives, begun when it is the call's turn. Raises as `enter` and it do."""
        ask = Ask(
            call.deadline,
            call.tenant,
            call.prompt_tokens or prompt_estimate(call),
            priority=call.priority,
            weight=self.weights.get(call.tenant, 1.0),
        )
        ticket = await self._admitted(ask)
        try:
            return await make(call)
        finally:
            self._end(ticket)

    async def enter(self, call: Generate) -> Ticket:
        """Returns when the call may go into the engine; give the ticket to `leave` whatever happens then.

        Raises `Overloaded` and `DeadlineExceeded`. A call that is cancelled meanwhile is gone at once.
        """
        ticket = await self._admitted(self._ask(call))
        if not call.stream and self._watched is not None:
            self._unseen[call.request_id] = ticket
        return ticket

    def observe(self, ticket: Ticket, output_tokens: int) -> None:
        """Output of a call so far, in all."""
        first = not ticket.output_tokens
        self._queue.observe(ticket, output_tokens, time.time())
        if first and self._queue.blocked == "reading":
            self._refill(time.time())

    def leave(self, ticket: Ticket, call: Generate, *, done: bool) -> None:
        """The call is not in the engine any more; `done` says that it came to its end there."""
        if self._unseen.get(call.request_id) is ticket:
            del self._unseen[call.request_id]
        if done:
            used = ticket.output_tokens / max(1, call.max_tokens * call.sampling.n)
            self._used_share += SMOOTHING * (min(1.0, used) - self._used_share)
        self._end(ticket)

    async def _admitted(self, ask: Ask) -> Ticket:
        """Returns when the call may go in."""
        now = time.time()
        # What is not known of calls in the engine may keep one out that has room.
        ticket = self._queue.at_once(ask, now) if not self._unseen else None
        if ticket is None:
            ticket = self._queue.offer(ask, now)
            self._refill(now)
        if ticket.state == "waiting":
            await self._turn(ticket)
        elif ticket.state == "late":
            raise late()
        return ticket

    def _end(self, ticket: Ticket) -> None:
        now = time.time()
        self._queue.end(ticket, now)
        self._refill(now)

    async def _turn(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        ticket.owner = turn
        # The queue sees a deadline when it looks at the call, which an engine that hangs may put off.
        timer = loop.call_later(max(0.0, ticket.ask.deadline - time.time()), _expire, turn)
        try:
            await turn
        except BaseException:
            self._end(ticket)
            raise
        finally:
            timer.cancel()

    def _refill(self, now: float) -> None:
        """Lets in whoever may go now."""
        queue = self._queue
        if not queue.waiting:
            return
        if self._watched is not None and self._unseen:
            for request_id, output_tokens in self._watched.produced().items():
                ticket = self._unseen.get(request_id)
                if ticket is not None:
                    queue.observe(ticket, output_tokens, now)
        for ticket in queue.admit(now):
            turn: asyncio.Future[None] | None = ticket.owner
            if turn is None:
                continue  # it is only being offered
            if ticket.state == "late":
                _expire(turn)
            elif not turn.done():
                turn.set_result(None)
        if queue.blocked in ("reading", "held") and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self._refill(time.time())

    def _ask(self, call: Generate) -> Ask:
        each = call.expected_tokens or math.ceil(self._used_share * call.max_tokens)
        return Ask(
            deadline=call.deadline,
            tenant=call.tenant,
            prompt_tokens=call.prompt_tokens or prompt_estimate(call),
            output_tokens=min(each, call.max_tokens) * call.sampling.n,
            sequences=call.sampling.n,
            priority=call.priority,
            weight=self.weights.get(call.tenant, 1.0),
            whole=not call.stream,
        )


def prompt_estimate(call: Generate | Embed) -> int:
    """Tokens of a prompt that nobody has counted."""
    if isinstance(call, Embed):
        chars = sum(map(len, call.texts))
    else:
        chars = len(call.prompt or "") + sum(len(message.content or "") for message in call.messages or ())
    return 1 + chars // CHARS_PER_TOKEN


def late() -> DeadlineExceeded:
    return DeadlineExceeded("the call's deadline passed, or can no longer be met")


def _expire(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(late())
