"""Calls of all clients and runs gathered into batches, for engines that compute a batch at once.

    call ─► [a: 2 texts] [b: 1] [a: 16] ─► batch ─► engine ─► every call its own part

They gather as `cluster.gathering` says, by tokens. Calls with many texts are cut, and take turns with those
that have few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Protocol, runtime_checkable

import msgspec
import structlog

from cluster.admission.batches import Service
from cluster.admission.queue import Ask
from cluster.engines.gate import prompt_estimate
from cluster.engines.sharing import SharedTime
from cluster.errors import ClusterError, EngineFailed
from cluster.gathering import Gatherer, Place
from cluster.messages import AdmissionState, Embed, Embeddings, Usage

PART = 16
"""Texts of one call that go into a batch together."""
LEAST_TOKENS = 64
MOST_TOKENS = 65_536
"""Bounds of a batch, whatever was measured. One part of a call may be longer."""

log = structlog.get_logger(__name__)


@runtime_checkable
class BatchEngine(Protocol):
    """An engine that computes several calls at once."""

    async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
        """What became of each call, in order. Each stands for itself: one that is refused fails alone."""
        ...


class Batcher:
    """What stands in front of one engine."""

    def __init__(self, engine: BatchEngine, shared: SharedTime, *, waiting: int) -> None:
        """`waiting`: parts of calls that may wait."""
        self.weights: Mapping[str, float] = {}
        self.service = Service(LEAST_TOKENS, LEAST_TOKENS, MOST_TOKENS)
        self.untold_ns = 0
        """Time of the engine that went into calls which had left."""
        self._engine = engine
        self._time = shared
        self._gatherer: Gatherer[Embed, Embeddings] = Gatherer(self._compute, self.service, waiting=waiting)

    def state(self) -> AdmissionState:
        return self._gatherer.state()

    async def embed(self, call: Embed) -> Embeddings:
        """The vectors of a call, from whichever batches. Raises `ClusterError`."""
        asked = ((part, self._ask(part)) for part in _parts(call))
        made = await self._gatherer.made(asked, call.deadline)
        vectors = [vector for part in made for vector in part.vectors]
        return Embeddings(vectors, sum((part.usage for part in made), Usage()))

    def _ask(self, part: Embed) -> Ask:
        tokens = part.prompt_tokens or prompt_estimate(part)
        weight = self.weights.get(part.tenant, 1.0)
        return Ask(part.deadline, part.tenant, tokens, priority=part.priority, weight=weight)

    async def _compute(self, batch: Sequence[Place[Embed, Embeddings]]) -> int | None:
        calls = [place.item for place in batch]
        began = perf_counter_ns()
        beginnings = [self._time.begin(began) for _ in batch]
        made: Sequence[Embeddings | ClusterError]
        tokens: int | None = None
        try:
            made = await self._engine.embed_many(calls)
            tokens = sum(each.usage.prompt_tokens for each in made if isinstance(each, Embeddings))
        except Exception as error:
            log.exception("engine_failed", model=calls[0].model)
            failed = f"the engine of {calls[0].model} failed: {type(error).__name__}"
            made = [EngineFailed(failed) for _ in batch]
        for place, beginning, each in zip(batch, beginnings, made, strict=True):
            share = self._time.end(beginning, perf_counter_ns())
            if isinstance(each, Embeddings):
                each = Embeddings(each.vectors, msgspec.structs.replace(each.usage, engine_ns=share))
            if not place.end(each) or isinstance(each, ClusterError):
                self.untold_ns += share
        return tokens


def _parts(call: Embed) -> list[Embed]:
    """The call, cut where it has many texts; its tokens are shared out among the parts by their lengths."""
    if len(call.texts) <= PART:
        return [call]
    chars = sum(map(len, call.texts)) or 1
    parts = []
    for start in range(0, len(call.texts), PART):
        texts = call.texts[start : start + PART]
        tokens = -(-call.prompt_tokens * sum(map(len, texts)) // chars)
        parts.append(msgspec.structs.replace(call, texts=texts, prompt_tokens=tokens))
    return parts
