"""The queue in front of an engine or a function, as metrics that Ray exports to Prometheus.

Serve puts the deployment and the replica on them. Of tenants, who are unbounded, `/v1/admin/pools` tells.
"""

from __future__ import annotations

from typing import Any

from ray.serve import metrics

from cluster.messages import AdmissionState

GAUGES = {
    "sequences": "Sequences in the engine.",
    "kv_tokens": "Tokens booked of the engine's KV cache.",
    "reading_tokens": "Tokens of prompts that the engine has still to read.",
    "waiting": "Calls that wait for their turn.",
    "waiting_tokens": "Tokens of the calls that wait, with the output that is likely.",
    "waiting_tenants": "Tenants whose calls wait.",
    "wait_s": "Seconds that calls have lately waited.",
    "tokens_per_s": "Tokens a second, lately, while something waited.",
}
COUNTERS = {
    "admitted": "Calls that went into the engine.",
    "refused": "Calls that were refused because the queue was full.",
    "late": "Calls that were refused because their deadline could not be met any more.",
}


class QueueMetrics:
    """Of one process. Made in it."""

    def __init__(self, label: str | None = None) -> None:
        """`label` tells the queues of one process apart: of few values, whatever tenants there are."""
        self._label = label
        keys = () if label is None else (label,)
        self._gauges: dict[str, Any] = {
            name: metrics.Gauge(f"clustergraph_queue_{name}", meaning, tag_keys=keys)
            for name, meaning in GAUGES.items()
        }
        self._counters: dict[str, Any] = {
            name: metrics.Counter(f"clustergraph_queue_{name}", meaning, tag_keys=keys)
            for name, meaning in COUNTERS.items()
        }
        self._counted: dict[tuple[str, str], int] = {}

    def __call__(self, state: AdmissionState, of: str = "") -> None:
        """`of`: the value of the label."""
        tags = None if self._label is None else {self._label: of}
        for name, gauge in self._gauges.items():
            gauge.set(getattr(state, name), tags=tags)
        for name, counter in self._counters.items():
            total, counted = getattr(state, name), self._counted.get((name, of), 0)
            if total > counted:
                counter.inc(total - counted, tags=tags)
                self._counted[name, of] = total
