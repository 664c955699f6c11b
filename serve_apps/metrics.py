"""What runners save and lose, and what calls use, as metrics that Ray exports to Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from ray.serve import metrics

from runtime.cache.counts import WHAT, What
from serve_apps.accounting.folding import Folded
from serve_apps.accounting.model import Share

_MEANING: dict[What, str] = {
    "cache_hits": "Answers of nodes that were given again from the cache.",
    "cache_misses": "Looks into the cache that found nothing.",
    "shared": "Calls of nodes that another run made at the same time.",
    "shared_afar": "Those of them that a run of another runner made.",
    "awaited_in_vain": "Calls that another runner was waited for and that were made here after all.",
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


_AMOUNTS = ("input_tokens", "cached_tokens", "output_tokens", "engine_ns", "nanodollars")


class CallMetrics:
    """What calls used: counted when they are folded, off the way of any request, those of a fold together.

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

    def __call__(self, changes: Iterable[Folded]) -> None:
        """A call that is told again, as it was settled late, counts once, with the most that was told."""
        ends: Counter[str] = Counter()
        more: Counter[tuple[str, str]] = Counter()
        for record, before in changes:
            if before is None:
                ends[record.end] += 1
            else:
                _add(more, before.shares, -1)
            _add(more, record.shares, 1)
        for end, calls in ends.items():
            self._calls.inc(calls, tags={"end": end})
        for (model, kind), amount in (+more).items():
            self._count(model if model in self._models else "", kind, amount)

    def _count(self, model: str, kind: str, amount: int) -> None:
        if kind == "engine_ns":
            self._engine_s.inc(amount / 10**9, tags={"model": model})
        elif kind == "nanodollars":
            self._dollars.inc(amount / 10**9, tags={"model": model})
        else:
            self._tokens.inc(amount, tags={"model": model, "kind": kind.removesuffix("_tokens")})


def _add(sums: Counter[tuple[str, str]], shares: Iterable[Share], sign: int) -> None:
    """By model and kind."""
    for share in shares:
        for kind in _AMOUNTS:
            sums[share.model, kind] += sign * getattr(share, kind)
