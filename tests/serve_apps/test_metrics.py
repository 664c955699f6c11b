"""What runners save and calls use, as Ray's metrics."""

import pytest

from runtime.cache.counts import WHAT, Counts
from serve_apps import metrics
from serve_apps.accounting.model import Share
from serve_apps.metrics import CallMetrics, SavingsMetrics
from tests.serve_apps.accounting.records import record


class Counter:
    """What we use of Ray's."""

    def __init__(self, name, description, tag_keys):
        assert description.endswith(".")
        self.name = name
        self.tag_keys = tag_keys
        self.counted = []

    def inc(self, amount, tags):
        assert amount > 0
        assert tuple(tags) == self.tag_keys
        self.counted.append((amount, tags))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch):
    """The counters that are made."""
    counters = []
    monkeypatch.setattr(
        metrics.metrics,
        "Counter",
        lambda *given, **named: counters.append(Counter(*given, **named)) or counters[-1],
    )
    return counters


def test_all_that_is_counted_is_exported(made):
    counts = Counts(SavingsMetrics())
    for what in WHAT:
        counts.add(what, "llm", 3)
    assert [each.name for each in made] == [f"clustergraph_{what}" for what in WHAT]
    assert all(each.counted == [(3, {"kind": "llm"})] for each in made)


def test_calls_are_counted_by_what_the_config_names(made):
    shares = [Share("small", "answer", 6, 2, 4, 10**9, 5 * 10**8), Share("gone", input_tokens=1)]
    CallMetrics(["small"])([record("a", shares=shares), record("b", end="cut", shares=[])])
    calls, tokens, engine_s, dollars = (each.counted for each in made)
    assert calls == [(1, {"end": "done"}), (1, {"end": "cut"})]
    assert tokens == [
        (6, {"model": "small", "kind": "input"}),
        (2, {"model": "small", "kind": "cached"}),
        (4, {"model": "small", "kind": "output"}),
        (1, {"model": "", "kind": "input"}),
    ]
    assert (engine_s, dollars) == ([(1.0, {"model": "small"})], [(0.5, {"model": "small"})])
