"""Runs as those see them who decide how many replicas there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cluster.autoscaling.model import CALLS, ENDED, SECONDS, begun, running


class Tally:
    """Counts the runs of one process. Graphs that are not deployed are in the sums alone: their names are
    anybody's."""

    def __init__(self, graphs: Iterable[str]) -> None:
        self._begun = dict.fromkeys(graphs, 0)
        self._running: Counter[str] = Counter()
        self._runs = self._ended = 0
        self._seconds = 0.0

    def begin(self, graph: str) -> None:
        self._runs += 1
        if graph in self._begun:
            self._begun[graph] += 1
            self._running[graph] += 1

    def end(self, graph: str, seconds: float) -> None:
        self._ended += 1
        self._seconds += seconds
        if graph in self._begun:
            self._running[graph] -= 1

    def counts(self) -> dict[str, float]:
        """By the names of `cluster.autoscaling.model`."""
        counts: dict[str, float] = {CALLS: self._runs, ENDED: self._ended, SECONDS: self._seconds}
        for graph, number in self._begun.items():
            counts |= {begun(graph): number, running(graph): self._running[graph]}
        return counts
