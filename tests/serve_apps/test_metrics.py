"""What runners save, as Ray's metrics."""

import pytest

from runtime.cache.counts import WHAT, Counts
from serve_apps import metrics
from serve_apps.metrics import SavingsMetrics


class Counter:
    """What we use of Ray's."""

    def __init__(self, name, description, tag_keys):
        assert description.endswith(".")
        assert tag_keys == ("kind",)
        self.name = name
        self.counted = []

    def inc(self, amount, tags):
        self.counted.append((amount, tags))


def test_all_that_is_counted_is_exported(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(
        metrics.metrics, "Counter", lambda *given, **named: made.append(Counter(*given, **named)) or made[-1]
    )
    counts = Counts(SavingsMetrics())
    for what in WHAT:
        counts.add(what, "llm", 3)
    assert [each.name for each in made] == [f"clustergraph_{what}" for what in WHAT]
    assert all(each.counted == [(3, {"kind": "llm"})] for each in made)
