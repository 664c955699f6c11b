"""The call of a node that several runs wait for: that of no single one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from cluster.messages import Usage
from graphs.bindings import Ref
from runtime.cache.flights import Flight
from runtime.executor.kinds.kind import NodeCall, Passed

T = TypeVar("T")

MAX_LONGER_S = 600.0
"""Most time that a shared call has beyond the run that began it."""


def longer(deadline: float, now: float) -> float:
    """The deadline of a shared call: as much time again as the run that begins it has (Unix seconds).

    Runs that come on board later may have more time, and an engine is told the deadline once. When nobody
    waits any more the call is cancelled, so that a late deadline costs nothing.
    """
    return deadline + min(max(0.0, deadline - now), MAX_LONGER_S)


class SharedCall(NodeCall):
    """Goes by the names of the call that began it, which may have left, and reports to the flight.

    Only nodes without nodes inside them are shared, of which no text is wanted as it is written.
    """

    def __init__(self, first: NodeCall, flight: Flight) -> None:
        self._flight = flight
        self._request_id = first.request_id
        self._calls = 0
        self._deadline = longer(first.deadline, time.time())
        self._graph, self._run_id, self._node = first.graph, first.run_id, first.node
        self._tenant, self._priority = first.tenant, first.priority
        self._key = first.idempotency_key

    @property
    def request_id(self) -> str:
        return f"{self._request_id}*{self._calls + 1}" if self._calls else self._request_id

    @property
    def graph(self) -> str:
        return self._graph

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def node(self) -> str:
        return self._node

    @property
    def deadline(self) -> float:
        return self._deadline

    @property
    def tenant(self) -> str:
        return self._tenant

    @property
    def priority(self) -> int:
        return self._priority

    @property
    def stream(self) -> bool:
        return False

    @property
    def idempotency_key(self) -> str:
        return self._key

    @property
    def last_kept(self) -> int:
        return 0

    @property
    def leaving(self) -> bool:
        return False

    @property
    def asks_until(self) -> float:
        return self._deadline

    @property
    def bodies(self) -> Mapping[str, Sequence[str]]:
        return {}

    @property
    def tokens(self) -> int:
        """That it has cost."""
        return self._flight.tokens

    def called(self, model: str, prompt_tokens: int) -> None:
        self._calls += 1
        self._flight.called(model, prompt_tokens)

    def owe(self, usage: Usage) -> None:
        self._flight.owe(usage)

    def waiting(self, message: str) -> None:
        """Nobody waits for people in here."""

    def keep(self, key: str, value: Any, /, supersedes: Sequence[str] = ()) -> None:
        """What a part of it gave is of no run."""

    def kept(self, _key: str, /) -> Any:
        return None

    async def once(self, _key: str, /, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def delta(self, text: str) -> None:
        """Nobody listens."""

    def follows(self, _port: str) -> bool:
        return False

    async def put(self, port: str, item: Any) -> None:
        """Nobody reads."""

    def holds(self, _body: str) -> bool:
        return True

    @property
    def ahead(self) -> Sequence[str]:
        return ()

    def take_begun(self) -> dict[str, asyncio.Task[Passed]]:
        return {}

    def dropped(self, _label: str) -> Usage:
        return Usage()

    async def run(self, body: str, given: Mapping[Ref, Any], label: str) -> Passed:
        told = f"{body} of {self._node}{label} with {len(given)} values"
        raise AssertionError(f"a node with nodes inside it is not shared: {told}")
