from __future__ import annotations

from cluster.autoscaling.model import CALLS, ENDED, SECONDS, begun, running
from runtime.tally import Tally


def test_runs_are_counted_by_graph_and_together() -> None:
    tally = Tally(["a", "b"])
    tally.begin("a")
    tally.begin("a")
    tally.end("a", 1.5)
    assert tally.counts() == {
        CALLS: 2, ENDED: 1, SECONDS: 1.5, begun("a"): 2, running("a"): 1, begun("b"): 0, running("b"): 0,
    }  # fmt: skip


def test_graphs_that_come_with_calls_make_no_names() -> None:
    tally = Tally(["a"])
    tally.begin("made up")
    tally.end("made up", 2.0)
    assert tally.counts() == {CALLS: 1, ENDED: 1, SECONDS: 2.0, begun("a"): 0, running("a"): 0}
