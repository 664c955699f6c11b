"""What runners save and lose, and what calls use, as metrics that Ray exports to Prometheus."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ray.serve import metrics

from runtime.cache.counts import WHAT, What
from serve_apps.accounting.model import CallRecord

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


class CallMetrics:
    """What calls used: counted when they are folded, off the way of any request.

    Labels are words of the config and of ours: how calls end, models, kinds of tokens. By key, team or tag
    the tables tell.
    """

    def __init__(self, models: Collection[str]) -> None:
        self._models = frozenset(models)
        self._calls = metrics.Counter("clustergraph_calls", "Calls that ended, by how.", tag_keys=("end",))
        self._tokens = metrics.Counter(
            "clustergraph_tokens",
            "Tokens of prompts, cached ones of them, and outputs.",
            tag_keys=("model", "kind"),
        )
        self._engine_s = metrics.Counter(
            "clustergraph_engine_seconds", "Time of engines that calls were charged.", tag_keys=("model",)
        )
        self._dollars = metrics.Counter(
            "clustergraph_cost_dollars", "US dollars that calls were charged.", tag_keys=("model",)
        )

    def __call__(self, records: Iterable[CallRecord]) -> None:
        for record in records:
            self._calls.inc(1, tags={"end": record.end})
            for share in record.shares:
                model = share.model if share.model in self._models else ""
                for kind in ("input", "cached", "output"):
                    count = getattr(share, f"{kind}_tokens")
                    if count:
                        self._tokens.inc(count, tags={"model": model, "kind": kind})
                if share.engine_ns:
                    self._engine_s.inc(share.engine_ns / 10**9, tags={"model": model})
                if share.nanodollars:
                    self._dollars.inc(share.nanodollars / 10**9, tags={"model": model})
