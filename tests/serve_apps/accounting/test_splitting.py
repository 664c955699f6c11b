from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.messages import Failure, Usage
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFellBack,
    NodeFinished,
    NodesDropped,
    NodeUsage,
    PrefixRead,
    RunEvent,
    RunFailed,
    RunResumed,
)
from serve_apps.accounting.splitting import NOTHING, NodeTally, Place, Split, fitted, since

COUNTS = st.builds(Usage, st.integers(0, 50), st.integers(0, 50), st.just(0), st.integers(0, 99))
SPLITS = st.dictionaries(st.builds(Place, st.sampled_from("ab"), st.sampled_from("xy")), COUNTS)


def split_of(*events: RunEvent) -> Split:
    tally = NodeTally()
    for event in events:
        tally.add(event)
    return tally.split


def test_a_node_that_called_two_models_says_which_did_what() -> None:
    split = split_of(
        NodeCalled("a", "large", 10),
        NodeFellBack("a", "model small", "unavailable"),
        NodeCalled("a", "small", 10),
        NodeFinished("a", 0.1, Usage(12, 3), models={"large": Usage(2), "small": Usage(10, 3)}),
    )
    assert split == {Place("a", "large"): Usage(2), Place("a", "small"): Usage(10, 3)}


def test_what_was_read_ahead_is_of_the_node_that_it_was_read_for() -> None:
    split = split_of(
        PrefixRead("all[0].a", "m", Usage(9, 1)),
        NodeCalled("all[0].a", "m", 10),
        NodeFinished("all[0].a", 0.1, Usage(10, 3)),
    )
    assert split == {Place("all.a", "m"): Usage(19, 4)}


def test_what_was_kept_from_earlier_is_the_last_models() -> None:
    split = split_of(NodeCalled("a", "m", 10), RunResumed("r", 2, 0), NodeFinished("a", 0.1, Usage(10, 3)))
    assert split == {Place("a", "m"): Usage(10, 3)}


def test_what_a_process_that_died_was_at_is_not_owed() -> None:
    assert split_of(NodeCalled("a", "m", 10), NodeDelta("a", "abc"), RunResumed("r", 2, 0)) == {}


def test_what_was_given_up_is_owed_until_the_end_tells_better() -> None:
    events: list[RunEvent] = [NodeCalled("pick.0.a", "m", 10), NodeDelta("pick.0.a", "abcd")]
    dropped = NodesDropped("pick.0", Usage(10, 2))
    assert split_of(*events, dropped) == {Place("pick.0.a", "m"): Usage(10, 2)}
    failed = RunFailed(
        Failure("EngineFailed", "x"), Usage(10, 1), 1.0, None, [NodeUsage("pick.0.a", "m", Usage(10, 1))]
    )
    assert split_of(*events, dropped, failed) == {Place("pick.0.a", "m"): Usage(10, 1)}


@given(SPLITS, COUNTS)
def test_a_split_is_made_to_add_up(split: Split, total: Usage) -> None:
    made = fitted(split, total)
    assert sum(made.values(), NOTHING) == total
    assert all(min(u.prompt_tokens, u.completion_tokens, u.engine_ns) >= 0 for u in made.values())


@given(SPLITS, SPLITS)
def test_what_came_since_is_never_less_than_nothing(now: Split, before: Split) -> None:
    later = since(now, before)
    assert all(
        usage != NOTHING and min(usage.prompt_tokens, usage.completion_tokens) >= 0
        for usage in later.values()
    )
    assert since(now, {}) == {place: usage for place, usage in now.items() if usage != NOTHING}
