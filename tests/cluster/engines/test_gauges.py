from __future__ import annotations

from typing import Any

import pytest

from cluster.engines import gauges
from cluster.engines.gauges import COUNTERS, GAUGES, QueueMetrics
from cluster.messages import AdmissionState


class Metric:
    """What we use of Ray's."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description.endswith(".")
        self.name, self.keys, self.values = name, tag_keys, list[float]()
        self.tags: list[dict[str, str] | None] = []

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.values.append(value)
        self.tags.append(tags)

    def inc(self, amount: float, tags: dict[str, str] | None = None) -> None:
        assert amount > 0
        self.values.append(amount)
        self.tags.append(tags)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Metric]:
    found: dict[str, Metric] = {}

    def make(*given: Any, **named: Any) -> Metric:
        found[given[0].removeprefix("clustergraph_queue_")] = metric = Metric(*given, **named)
        return metric

    for kind in ("Gauge", "Counter"):
        monkeypatch.setattr(gauges.metrics, kind, make)
    return found


def test_what_is_told_is_exported(made: dict[str, Metric]) -> None:
    watch = QueueMetrics()
    watch(AdmissionState(waiting=3, wait_s=0.5, admitted=10, late=1))
    watch(AdmissionState(waiting=1, admitted=12, late=1))
    assert made["waiting"].values == [3, 1]
    assert made["wait_s"].values == [0.5, 0.0]
    assert (made["admitted"].values, made["late"].values, made["refused"].values) == ([10, 2], [1], [])
    assert set(made) == {*GAUGES, *COUNTERS} <= set(AdmissionState.__struct_fields__)
    assert made["waiting"].tags == [None, None]


def test_queues_of_one_process_are_told_apart(made: dict[str, Metric]) -> None:
    watch = QueueMetrics("function")
    watch(AdmissionState(waiting=3, admitted=10), "m:a")
    watch(AdmissionState(waiting=1, admitted=4), "m:b")
    watch(AdmissionState(admitted=5), "m:b")
    assert made["waiting"].keys == ("function",)
    assert made["waiting"].tags == [{"function": "m:a"}, {"function": "m:b"}, {"function": "m:b"}]
    assert made["admitted"].values == [10, 4, 1]
