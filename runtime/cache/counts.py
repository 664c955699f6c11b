"""What was saved and what was lost, counted: for tests, and for whatever shows it to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

What = Literal[
    "cache_hits",
    "cache_misses",
    "shared",
    "shared_afar",
    "awaited_in_vain",
    "saved_tokens",
    "lost_tokens",
    "warmed_tokens",
]
"""`cache_hits`, `cache_misses`: looks for a result. `shared`: calls of a run that another run made for it;
`shared_afar`: those of them that a run of another runner made. `awaited_in_vain`: calls that another runner
was waited for and that were made here after all. `saved_tokens`: that results and shared calls would have
cost. `lost_tokens`: of bodies that were begun ahead and not chosen. `warmed_tokens`: of prompts whose
beginnings were read ahead."""
WHAT: tuple[What, ...] = get_args(What)

Watch = Callable[[What, str, int], None]
"""Is told what was counted, the kind of the node, and by how much. Neither waits nor raises."""


class Counts:
    """Of one process, by kind of node: a label of a few values, whatever graphs and tenants there are."""

    def __init__(self, watch: Watch | None = None) -> None:
        self._watch = watch
        self.totals: Counter[tuple[What, str]] = Counter()

    def add(self, what: What, kind: str, amount: int = 1) -> None:
        if amount:
            self.totals[what, kind] += amount
            if self._watch is not None:
                self._watch(what, kind, amount)

    def total(self, what: What) -> int:
        """Over all kinds."""
        return sum(amount for (counted, _), amount in self.totals.items() if counted == what)
