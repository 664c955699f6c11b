"""What runners save and lose, as metrics that Ray exports to Prometheus."""

from __future__ import annotations

from ray.serve import metrics

from runtime.cache.counts import WHAT, What

_MEANING: dict[What, str] = {
    "cache_hits": "Answers of nodes that were given again from the cache.",
    "cache_misses": "Looks into the cache that found nothing.",
    "shared": "Calls of nodes that another run made at the same time.",
    "saved_tokens": "Tokens that kept answers and shared calls would have cost.",
    "lost_tokens": "Tokens of what was begun ahead and not chosen.",
    "warmed_tokens": "Tokens of the beginnings of prompts that were read ahead.",
}


class SavingsMetrics:
    """A `runtime.cache.counts.Watch`. The only label of ours is the kind of the node."""

    def __init__(self) -> None:
        self._counters = {
            what: metrics.Counter(f"clustergraph_{what}", _MEANING[what], tag_keys=("kind",)) for what in WHAT
        }

    def __call__(self, what: What, kind: str, amount: int) -> None:
        self._counters[what].inc(amount, tags={"kind": kind})
