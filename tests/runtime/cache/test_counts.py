"""What was saved and lost, by kind of node."""

from runtime.cache.counts import Counts


def test_counts_by_kind_and_tells_whoever_watches():
    told = []
    counts = Counts(lambda *counted: told.append(counted))
    counts.add("cache_hits", "llm")
    counts.add("cache_hits", "embed", 2)
    counts.add("saved_tokens", "llm", 0)
    assert counts.total("cache_hits") == 3
    assert counts.totals["cache_hits", "embed"] == 2
    assert told == [("cache_hits", "llm", 1), ("cache_hits", "embed", 2)]
