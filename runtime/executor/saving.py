"""A node that is not run where its answer is there, or on its way.

    kept? ─► yes: given again, nothing owed                                      `cache`
      └─► no ─► does another run ask the same now? ─► yes: wait for its answer   `shared`
                  └─► no: run it, and keep what it gave                          `node`

Below the policies of the node: each try looks again, what a fallback gives is never kept, and every run has
time limits and retries of its own, whoever does the work.

A call is not shared where the run wants its text as it is written, or a node reads what it gives while that
is made: one slow reader would hold up all others, and who comes late would have to be told what the others
have heard.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from cluster.errors import DeadlineExceeded, InvalidCall
from graphs.pipeline import Cache
from runtime.cache.flights import Flight
from runtime.cache.results import Result
from runtime.executor.identity import identity_of, question_of
from runtime.executor.kinds.kind import Perform, Resources, Values
from runtime.executor.shared_call import SharedCall
from runtime.executor.tried_call import TriedCall, Try
from runtime.plan import PlannedNode

STALE_S = 24 * 3600.0
"""How long a result is kept for a `cached: true`, where its own time is shorter."""


def saved(node: PlannedNode, perform: Perform, resources: Resources, around: Sequence[int]) -> Try:
    """The node as it runs where it is cached or shared, else `perform` itself."""
    if node.cache is None and not node.shared:
        return perform
    return Saver(node, perform, resources, around).answer


class Saver:
    """Of one node of a plan. `around` are the slots of what its bodies take from around it."""

    def __init__(
        self, node: PlannedNode, perform: Perform, resources: Resources, around: Sequence[int]
    ) -> None:
        self._perform = perform
        self._savings = resources.savings
        self._identity = identity_of(node, resources)
        self._around = tuple(around)
        self._kind = node.spec.kind()
        self._streams = node.spec.streams
        self._shared = node.shared
        self._cache = node.cache
        self._keep_s = 0.0 if node.cache is None else node.cache.ttl_s
        if any(fallback.cached for fallback in node.fallback):
            self._keep_s = max(self._keep_s, STALE_S)

    async def answer(self, call: TriedCall, inputs: Values) -> Values:
        """What the node gives. Raises what it raises."""
        call.source = "node"
        question = self._question(call, inputs)
        if question is None:
            return await self._perform(call, inputs)
        if self._cache is None:
            return await self._made(call, inputs, question)
        return await self._kept_or_made(self._cache, call, inputs, question)

    async def recall(self, call: TriedCall, inputs: Values) -> Result | None:
        """What the node gave last for these inputs, within `STALE_S`; None where nothing is kept."""
        question = self._question(call, inputs)
        if question is None:
            return None
        return await self._savings.results.get(call.tenant, question, time.time() - self._keep_s)

    async def give(self, call: TriedCall, kept: Result) -> Values:
        """The outputs that were kept; their text first, where the run wants that as it comes."""
        call.source = "cache"
        if self._streams is not None and call.stream:
            await call.delta(str(kept.outputs[self._streams]))
        return kept.outputs

    def _question(self, call: TriedCall, inputs: Values) -> str | None:
        values = [call.values[slot] for slot in self._around] if self._around else []
        return question_of(self._identity, inputs, values)

    async def _kept_or_made(self, cache: Cache, call: TriedCall, inputs: Values, question: str) -> Values:
        results, counts = self._savings.results, self._savings.counts
        kept = await results.get(call.tenant, question, time.time() - cache.ttl_s)
        if kept is not None:
            counts.add("cache_hits", self._kind)
            counts.add("saved_tokens", self._kind, kept.tokens)
            return await self.give(call, kept)
        counts.add("cache_misses", self._kind)
        before = call.cost.total_tokens
        outputs = await self._made(call, inputs, question)
        if call.source == "node":
            made = Result(outputs, time.time(), call.cost.total_tokens - before)
            results.put(call.tenant, question, made, self._keep_s)
        return outputs

    async def _made(self, call: TriedCall, inputs: Values, question: str) -> Values:
        if not self._shared or call.followed or (call.stream and self._streams is not None):
            return await self._perform(call, inputs)

        began = False

        async def work(flight: Flight) -> Values:
            nonlocal began
            began = True
            return await self._perform(SharedCall(call, flight), inputs)

        try:
            outputs, flight = await self._savings.flights.ride((call.tenant, question), call, work)
        except (DeadlineExceeded, InvalidCall):
            if began:
                raise
            # It was refused for what another run is: its time, or the name of its node.
            return await self._perform(call, inputs)
        if flight.owner is not call:
            call.source = "shared"
            self._savings.counts.add("shared", self._kind)
            self._savings.counts.add("saved_tokens", self._kind, flight.tokens)
        return outputs
