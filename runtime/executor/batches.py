"""Where the calls of functions that take batches meet: those of all runs, graphs and tenants of a process."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cluster.admission.batches import Service
from cluster.admission.queue import Ask
from cluster.errors import Overloaded
from cluster.gathering import MOST_ITEMS, Gatherer, Work
from cluster.messages import AdmissionState

Items = dict[str, Any]
"""By name: the inputs of one call, or its outputs."""

ENOUGH = 8
"""Calls of a batch that none is smaller than for all that was measured, but where calls are in a hurry."""
MAX_WAITING = 1024
"""Calls of one function."""


class Batches:
    """The queues of one process and one event loop, one for each function."""

    def __init__(self, weights: Mapping[str, float] = MappingProxyType({})) -> None:
        """`weights` are those of tenants, by name; 1 for those that are not in it."""
        self._weights = weights
        self._queues: dict[str, Gatherer[Items, Items]] = {}

    def meet(self, function: str, work: Work[Items, Items]) -> None:
        """Has the calls of a function done by `work`. The first that is given does them all."""
        if function not in self._queues:
            self._queues[function] = Gatherer(work, Service(1, ENOUGH, MOST_ITEMS), waiting=MAX_WAITING)

    async def made(self, function: str, item: Items, *, deadline: float, tenant: str, priority: int) -> Items:
        """The outputs of one call, from whichever batch.

        Raises `Overloaded`, `DeadlineExceeded`, and what the call has failed with. One that is cancelled
        while it waits is gone at once.
        """
        weight = self._weights.get(tenant, 1.0)
        ask = Ask(deadline, tenant, prompt_tokens=1, priority=priority, weight=weight)
        try:
            [outputs] = await self._queues[function].made([(item, ask)], deadline)
        except Overloaded as full:
            message = f"too many calls wait for {function}"
            raise Overloaded(message, retry_after_s=full.retry_after_s) from None
        return outputs

    def states(self) -> dict[str, AdmissionState]:
        """What the queues are like, by function. Their tokens are calls."""
        return {function: queue.state() for function, queue in self._queues.items()}
