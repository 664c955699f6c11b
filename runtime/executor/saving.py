"""A node that is not run where its answer is there, or on its way.

    kept? ─► yes: given again, nothing owed                                      `cache`
      └─► no ─► does another run ask the same now? ─► yes: wait for its answer   `shared`
                  └─► no: run it, and keep what it gave                          `node`

Another run of this runner is found in its flights. What is kept is looked for once by each flight, and where
there are other runners the same look tells whether one of them makes it (`runtime/cache/claims.py`).

Below the policies of the node: each try looks again, what a fallback gives is never kept, and every run has
time limits and retries of its own, whoever does the work.

A call is not shared where the run wants its text as it is written, or a node reads what it gives while that
is made: one slow reader would hold up all others, and who comes late would have to be told what the others
have heard.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from cluster.errors import DeadlineExceeded, InvalidCall
from runtime.cache.claims import Asked, Sought
from runtime.cache.flights import Flight
from runtime.cache.results import Result
from runtime.events import Source
from runtime.executor.identity import identity_of, question_of
from runtime.executor.kinds.kind import Perform, Resources, Values
from runtime.executor.shared_call import SharedCall
from runtime.executor.tried_call import TriedCall, Try
from runtime.plan import PlannedNode

STALE_S = 24 * 3600.0
"""How long a result is kept for a `cached: true`, where its own time is shorter."""


class _Landed(NamedTuple):
    """What a flight has come to."""

    outputs: Values
    source: Source = "node"
    """Of those who were on board: `shared` where another runner made it."""
    saved_tokens: int = 0
    """That somebody else has paid for it, before or in another runner."""


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
        if not self._shared or call.followed or (call.stream and self._streams is not None):
            return await self._unshared(call, inputs, question)
        return await self._together(call, inputs, question)

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

    async def _unshared(self, call: TriedCall, inputs: Values, question: str) -> Values:
        if self._cache is None:
            return await self._perform(call, inputs)
        oldest = time.time() - self._cache.ttl_s
        kept = await self._savings.results.get(call.tenant, question, oldest)
        if kept is None:
            self._savings.counts.add("cache_misses", self._kind)
            return await self._alone(call, inputs, question)
        self._hit(kept.tokens)
        return await self.give(call, kept)

    async def _alone(self, call: TriedCall, inputs: Values, question: str) -> Values:
        before = call.cost.total_tokens
        outputs = await self._perform(call, inputs)
        if self._cache is not None:
            made = Result(outputs, time.time(), call.cost.total_tokens - before)
            self._savings.results.put(call.tenant, question, made, self._keep_s)
        return outputs

    async def _together(self, call: TriedCall, inputs: Values, question: str) -> Values:
        cache, key = self._cache, (call.tenant, question)
        if cache is None:
            return await self._flown(call, inputs, question, key, self._made)
        oldest = time.time() - cache.ttl_s
        kept = self._savings.results.recent(call.tenant, question, oldest)
        if kept is not None:
            self._hit(kept.tokens)
            return await self.give(call, kept)
        asked = Asked(call.tenant, question, oldest, call.priority, call.deadline)
        # What counts as too old, and how long a result is kept, are those of whoever begins the flight.
        work = partial(self._kept_or_made, asked)
        return await self._flown(call, inputs, question, (*key, cache.ttl_s, self._keep_s), work)

    async def _flown(
        self, call: TriedCall, inputs: Values, question: str, key: Hashable, work: _Work
    ) -> Values:
        """What the flight of all that ask the same comes to."""
        began = False

        async def begin(flight: Flight) -> _Landed:
            nonlocal began
            began = True
            return await work(SharedCall(call, flight), inputs)

        try:
            landed, flight = await self._savings.flights.ride(key, call, begin)
        except (DeadlineExceeded, InvalidCall):
            if began:
                raise
            # It was refused for what another run is: its time, or the name of its node.
            return await self._alone(call, inputs, question)
        self._tell(call, landed, flight)
        return landed.outputs

    def _tell(self, call: TriedCall, landed: _Landed, flight: Flight) -> None:
        """Counts what one of those who were on board has saved."""
        counts = self._savings.counts
        call.source = landed.source
        if landed.source == "cache":
            self._hit(landed.saved_tokens)
        elif landed.source == "shared":
            counts.add("shared", self._kind)
            counts.add("shared_afar", self._kind)
            counts.add("saved_tokens", self._kind, landed.saved_tokens)
        elif flight.owner is not call:
            call.source = "shared"
            counts.add("shared", self._kind)
            counts.add("saved_tokens", self._kind, flight.tokens)

    async def _made(self, call: SharedCall, inputs: Values) -> _Landed:
        return _Landed(await self._perform(call, inputs))

    async def _kept_or_made(self, asked: Asked, call: SharedCall, inputs: Values) -> _Landed:
        """In a flight: what is kept or made elsewhere, else what the node gives."""
        claims, results, counts = self._savings.claims, self._savings.results, self._savings.counts
        if claims is None:
            sought = Sought(await results.get(asked.tenant, asked.digest, asked.oldest))
        else:
            sought = await claims.seek(asked)
        found = sought.result
        if found is not None and not sought.waited:
            return _Landed(found.outputs, "cache", found.tokens)
        counts.add("cache_misses", self._kind)
        if found is not None:
            return _Landed(found.outputs, "shared", found.tokens)
        if sought.waited:
            counts.add("awaited_in_vain", self._kind)
        async with nullcontext() if claims is None else claims.holding(asked, sought):
            outputs = await self._perform(call, inputs)
            made = Result(outputs, time.time(), call.tokens)
        if claims is None:
            results.put(asked.tenant, asked.digest, made, self._keep_s)
        else:
            claims.keep(asked, sought, made, self._keep_s)
        return _Landed(outputs)

    def _hit(self, tokens: int) -> None:
        self._savings.counts.add("cache_hits", self._kind)
        self._savings.counts.add("saved_tokens", self._kind, tokens)


_Work = Callable[[SharedCall, Values], Awaitable[_Landed]]
