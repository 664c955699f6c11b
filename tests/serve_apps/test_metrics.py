"""What runners save and calls use, as Ray's metrics."""

import pytest

from runtime.cache.counts import WHAT, Counts
from serve_apps import metrics
from serve_apps.accounting.folding import Folded
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
    twice = [Folded(record("a", shares=shares[:1])), Folded(record("b", end="cut", shares=[]))]
    CallMetrics(["small"])([*twice, Folded(record("c", shares=shares))])
    calls, tokens, engine_s, dollars = (each.counted for each in made)
    assert calls == [(2, {"end": "done"}), (1, {"end": "cut"})]
    assert tokens == [
        (12, {"model": "small", "kind": "input"}),
        (4, {"model": "small", "kind": "cached"}),
        (8, {"model": "small", "kind": "output"}),
        (1, {"model": "", "kind": "input"}),
    ]
    assert (engine_s, dollars) == ([(2.0, {"model": "small"})], [(1.0, {"model": "small"})])


def test_a_call_that_is_told_again_counts_what_it_came_to_beyond_that(made):
    first = record("a", end="expired", shares=[Share("small", input_tokens=6, output_tokens=1)])
    then = record("a", shares=[Share("small", input_tokens=6, cached_tokens=2, output_tokens=4)])
    CallMetrics(["small"])([Folded(then, first)])
    calls, tokens, _, _ = (each.counted for each in made)
    assert calls == []
    assert tokens == [(2, {"model": "small", "kind": "cached"}), (3, {"model": "small", "kind": "output"})]


def test_no_client_makes_up_a_label(made):
    """Whatever a call is of, what it is told of are words of the config and of ours: a bound for ever."""
    count = CallMetrics(["small", "large"])
    count(
        Folded(
            record(
                f"call-{number}",
                end=("done", "error", "cut")[number % 3],
                model=f"made-up-{number}",
                endpoint=f"/v1/{number}",
                caller=f"key-{number}",
                team=f"team-{number}",
                tags={f"tag-{number}": f"value-{number}"},
                shares=[
                    Share(("small", f"made-up-{number}")[number % 2], f"node-{number}", 6, 2, 4, 10**9, 1)
                ],
            )
        )
        for number in range(500)
    )
    labels = {(each.name, *tags.values()) for each in made for _, tags in each.counted}
    assert len(labels) == 3 + 2 * 3 + 2 + 2
    assert not any("made-up" in word or "-4" in word for label in labels for word in label)
