"""Which of several answers for a name: models that stand in for one another, or versions of one graph.

    traffic: {smollm2: {smollm2: 95, smollm2-awq: 5}}

    0 ─────────────── smollm2 ─────────────── 0.95 ─ smollm2-awq ─ 1
                               ▲ where the hash of a conversation, or of a caller that names none, lies

So a conversation stays where it began. What stands last in the list keeps, when its weight is raised, whom it
had and takes others beside them: a trial goes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from itertools import accumulate

from graphs.versions import AT
from serve_apps.gateway.rights import GRAPH_PREFIX

MAX_TARGETS = 16
_POINTS = 2**64


class Split:
    """Of the calls for one name."""

    def __init__(self, name: str, weights: Mapping[str, float]) -> None:
        """`weights`, not all 0, by the name of who answers."""
        whole = sum(weights.values())
        self._name = name
        self._weights = dict(weights)
        ends = accumulate(weights.values())
        self._upto = [(target, end / whole) for target, end in zip(weights, ends, strict=True)]

    def order(self, who: str) -> list[str]:
        """Whoever answers a conversation or caller first; those that step in where it cannot answer now
        behind it, the weightiest first. What has no weight steps in for nobody."""
        digest = blake2b(f"{self._name}\0{who}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest) / _POINTS
        used = [(target, end) for target, end in self._upto if self._weights[target]]
        chosen = next((target for target, end in used if point < end), used[-1][0])
        others = sorted(self._weights, key=self._weights.__getitem__, reverse=True)
        return [chosen, *(target for target in others if target != chosen and self._weights[target])]


def check_traffic(traffic: Mapping[str, Mapping[str, float]], tasks: Mapping[str, str]) -> None:
    """`tasks`: what each model is for. Which versions graphs have shows when these are loaded.

    Raises `ValueError` that names what cannot be.
    """
    for name, weights in traffic.items():
        where = f"traffic.{name}"
        if not any(weights.values()) or len(weights) > MAX_TARGETS:
            raise ValueError(
                f"{where}: list 1 to {MAX_TARGETS} that answer, one of them with a weight above 0"
            )
        if name.startswith(GRAPH_PREFIX):
            _check_graph(where, name, weights)
        else:
            _check_model(where, name, weights, tasks)


def _check_graph(where: str, name: str, weights: Mapping[str, float]) -> None:
    if AT in name:
        raise ValueError(f"{where}: a version answers for itself: write {name.partition(AT)[0]}")
    for target in weights:
        if not target.startswith(name + AT):
            raise ValueError(f"{where}: {target!r} is no version of it: write {name}{AT}VERSION")


def _check_model(where: str, name: str, weights: Mapping[str, float], tasks: Mapping[str, str]) -> None:
    for model in (name, *weights):
        if model not in tasks:
            raise ValueError(f"{where}: there is no model {model!r}; there are {', '.join(tasks)}")
        if tasks[model] != tasks[name]:
            raise ValueError(f"{where}: {model!r} is for {tasks[model]!r}, and {name!r} for {tasks[name]!r}")
