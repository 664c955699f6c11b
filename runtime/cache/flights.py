"""Calls that several runs share while they last: single flight.

    run A ─► ride ─► begins the flight ──────────────► engine ──► lands: A, B and C have the answer
    run B ───► ride ─► on board                 ▲
    run C ─────► ride ─► on board               │
    run A cancelled ─► leaves; B owes now ──────┘      the last to leave ends the call in the engine

A flight belongs to none of its riders. The first on board owes what it costs; when it leaves the next one
does, and where nobody stays the last to leave. So at any moment exactly one run owes, and never none.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol, TypeVar

from cluster.errors import ClusterError
from cluster.messages import Usage

MUCH_MORE_URGENT = 5_000
"""Difference of priorities from which nobody waits for a call that stands further behind in the queues."""


class Rider(Protocol):
    """What a flight needs of the call of a run. They are told apart by identity."""

    @property
    def priority(self) -> int: ...

    def called(self, model: str, prompt_tokens: int, /) -> None:
        """Raises `ClusterError` where the run cannot owe so much."""

    def owe(self, usage: Usage, /) -> None: ...


T = TypeVar("T")


class Flights:
    """Those of one event loop, by what is asked."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._flying)

    async def ride(
        self, key: Hashable, rider: Rider, work: Callable[[Flight], Awaitable[T]]
    ) -> tuple[T, Flight]:
        """What the flight of this key comes to, and the flight; begins it where there is none.

        `work` does it: it reports its model calls to the flight. Raises what it raises, and where only the
        rider cannot afford it, that rider's own error.
        """
        flight = self._flying.get(key)
        if flight is None or flight.priority - rider.priority >= MUCH_MORE_URGENT:
            flight = self._begin(key, rider.priority, work)
        landed = flight.board(rider)
        try:
            outputs: T = await landed
        except asyncio.CancelledError:
            await flight.leave(rider)
            raise
        return outputs, flight

    def _begin(self, key: Hashable, priority: int, work: Callable[[Flight], Awaitable[Any]]) -> Flight:
        flight = self._flying[key] = Flight(priority, work, lambda: self._gone(key, flight))
        return flight

    def _gone(self, key: Hashable, flight: Flight) -> None:
        """Nobody gets on it any more. Another may have taken its place."""
        if self._flying.get(key) is flight:
            del self._flying[key]


class Flight:
    """One piece of work, and who waits for it."""

    def __init__(
        self, priority: int, work: Callable[[Flight], Awaitable[Any]], gone: Callable[[], None]
    ) -> None:
        self.priority = priority
        self.tokens = 0
        """That it has cost."""
        self.owner: Rider | None = None
        """Who owes. Whoever it was when it landed still is afterwards."""
        self._gone = gone
        self._riders: dict[int, tuple[Rider, asyncio.Future[Any]]] = {}
        """By identity, in the order in which they came on board."""
        self._open: tuple[str, int] | None = None
        """The model call that goes on, and the tokens of its prompt."""

        async def fly() -> Any:
            return await work(self)

        self._task = asyncio.get_running_loop().create_task(fly())
        self._task.add_done_callback(self._land)

    @property
    def riders(self) -> int:
        return len(self._riders)

    def board(self, rider: Rider) -> asyncio.Future[Any]:
        """What it will come to, for one rider."""
        landed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._riders[id(rider)] = rider, landed
        if self.owner is None:
            self.owner = rider
        return landed

    def called(self, model: str, prompt_tokens: int) -> None:
        """A model call has begun. Whoever cannot owe it gets off; raises its error where nobody is left."""
        self._open = model, prompt_tokens
        refused = self._find_owner()
        if refused is not None:
            raise refused

    def owe(self, usage: Usage) -> None:
        """What the last model call has come to."""
        self._open = None
        self.tokens += usage.total_tokens
        if self.owner is not None:
            self.owner.owe(usage)

    async def leave(self, rider: Rider) -> None:
        """The rider is cancelled. The last one takes the flight along, and waits until it is over."""
        if self._task.done() or id(rider) not in self._riders:
            return
        if len(self._riders) > 1:
            _, landed = self._riders.pop(id(rider))
            if self.owner is not rider or self._hand_over(rider):
                return
            self._riders[id(rider)] = rider, landed
        self._gone()
        self._task.cancel()
        await asyncio.wait([self._task])

    def _hand_over(self, rider: Rider) -> bool:
        """Has somebody else owe from now on; whether there is somebody who can."""
        if self._find_owner() is None and self._riders:
            if self._open is not None:
                rider.owe(Usage())
            return True
        self.owner = rider
        return False

    def _find_owner(self) -> ClusterError | None:
        """Makes the first who can owe the open call the owner. Those before who cannot get their errors;
        the last of these errors is given back where nobody can."""
        refused: ClusterError | None = None
        for key, (rider, landed) in list(self._riders.items()):
            try:
                if self._open is not None:
                    rider.called(*self._open)
            except ClusterError as error:
                refused = error
                del self._riders[key]
                if not landed.done():
                    landed.set_exception(error)
                continue
            self.owner = rider
            return None
        if refused is not None:
            self._gone()
        return refused

    def _land(self, task: asyncio.Task[Any]) -> None:
        """Gives everybody on board what it has come to."""
        self._gone()
        error = None if task.cancelled() else task.exception()
        for _, landed in self._riders.values():
            if landed.done():
                continue
            if task.cancelled():
                landed.cancel()
            elif error is not None:
                # One of its own to each: a shared one would gather every traceback.
                landed.set_exception(copy.copy(error))
            else:
                landed.set_result(task.result())
