"""Where calls go: to the least work, counted in tokens, of others and of their own."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from cluster.routing.facts import Booking, CallFacts, ReplicaFacts, ReplicaName
from cluster.routing.policy import (
    ALL,
    AVOIDED_S,
    BELIEVED_S,
    CALLS_BELIEVED_S,
    HOME_TOKENS,
    RANKED,
    TokenRouting,
)

A, B, C = (ReplicaName(name) for name in "abc")
FEW = [A, B, C]
MANY = [ReplicaName(f"r{number}") for number in range(200)]


def routing(names: list[ReplicaName]) -> TokenRouting:
    made = TokenRouting(Random(1))
    made.replicas(names)
    return made


def call(prompt: int = 1_000, output: int = 100, *blocks: int, session: str = "") -> CallFacts:
    """Of blocks of 250 tokens."""
    return CallFacts(prompt, output, blocks, range(250, 2_500, 250), session=session)


def send(policy: TokenRouting, facts: CallFacts, now: float = 0.0) -> Booking:
    return policy.sent(facts, policy.choose(facts, now)[0])


def test_there_is_nowhere_to_go_without_replicas_and_one_way_with_one() -> None:
    assert routing([]).choose(call(), 0.0) == []
    assert routing([A]).choose(call(), 0.0) == [A]


@pytest.mark.parametrize("names", [FEW, MANY])
def test_each_is_named_once_and_only_some(names: list[ReplicaName]) -> None:
    ranked = routing(names).choose(call(), 0.0)
    assert 2 <= len(ranked) <= RANKED
    assert len(set(ranked)) == len(ranked)


def test_tokens_are_counted_and_not_calls() -> None:
    policy = routing([A, B])
    large = policy.sent(call(8_000, 500), A)
    small = [policy.sent(call(100, 10), B) for _ in range(10)]
    assert policy.choose(call(), 0.0) == [B, A]
    large.end()
    assert policy.choose(call(), 0.0) == [A, B]
    for each in small:
        each.end()
        each.end()  # ends once
    policy.sent(call(1, 0), A)
    assert policy.choose(call(), 0.0) == [B, A]


def test_a_prompt_that_was_read_is_work_no_more() -> None:
    policy = routing([A, B])
    reading, _ = policy.sent(call(1_000, 10), A), policy.sent(call(500, 10), B)
    assert policy.choose(call(), 0.0) == [B, A]
    reading.answering()
    assert policy.choose(call(), 0.0) == [A, B]


def test_calls_that_begin_alike_go_together_until_load_says_otherwise() -> None:
    policy = routing(FEW)
    siblings = [send(policy, call(1_000, 20, 1, 2, 3, 100 + number)) for number in range(40)]
    went = [booking.replica for booking in siblings]
    assert went[:3] == [went[0]] * 3
    assert set(went) == set(FEW)


def test_another_beginning_goes_elsewhere() -> None:
    policy = routing([A, B])
    first = send(policy, call(1_000, 100, 1, 2, 3))
    assert send(policy, call(1_000, 100, 7, 8, 9)).replica != first.replica


@pytest.mark.parametrize("names", [FEW, MANY])
def test_the_next_turn_goes_where_the_last_was_answered(names: list[ReplicaName]) -> None:
    policy = routing(names)
    turns = [send(policy, call(250 * turn, 50, *range(turn), session="t/s")) for turn in range(1, 8)]
    for booking in turns:
        booking.end()
    others = [send(policy, call(2_000, 50, 1_000 + number)) for number in range(len(names))]
    for booking in others:
        booking.end()
    again = {policy.choose(call(2_000, 50, *range(8), session="t/s"), 0.0)[0] for _ in range(20)}
    assert again == {turns[-1].replica}


@pytest.mark.parametrize("names", [FEW, MANY])
def test_a_session_has_the_same_home_in_every_process(names: list[ReplicaName]) -> None:
    ours, others = routing(names), routing(names[::-1])
    others.choose(call(), 0.0)
    for number in range(20):
        facts = call(session=f"t/{number}")
        assert ours.choose(facts, 0.0)[0] == others.choose(facts, 0.0)[0]


@pytest.mark.parametrize("names", [FEW, MANY])
def test_short_calls_of_a_session_stay_together_as_long_as_their_replica_has_room(
    names: list[ReplicaName],
) -> None:
    policy = routing(names)
    home = policy.choose(call(10, 10, session="t/s"), 0.0)[0]
    policy.sent(call(int(HOME_TOKENS) - 20, 10), home)
    assert {policy.choose(call(10, 10, session="t/s"), 0.0)[0] for _ in range(20)} == {home}
    policy.sent(call(20, 10), home)
    assert policy.choose(call(10, 10, session="t/s"), 0.0)[0] != home


def test_one_that_failed_is_last_for_a_while() -> None:
    policy = routing([A, B])
    policy.sent(call(), B)
    policy.failed(A, now=10.0)
    assert policy.choose(call(), 10.0) == [B, A]
    assert policy.choose(call(), 10.0 + AVOIDED_S) == [A, B]
    policy.failed(ReplicaName("gone"), now=10.0)


def test_what_others_have_sent_counts_as_far_as_the_replica_has_said_so_lately() -> None:
    policy = routing([A, B])
    booking = policy.sent(call(500, 50), A)
    policy.told(A, ReplicaFacts(waiting=500, coming=50), now=0.0)  # its own calls
    policy.told(B, ReplicaFacts(waiting=5_000, coming=500), now=0.0)
    assert policy.choose(call(), 0.0) == [A, B]
    assert policy.choose(call(), BELIEVED_S) == [B, A]
    booking.end()
    policy.told_calls(A, 3, now=20.0)
    assert policy.choose(call(), 20.0) == [B, A]
    policy.told_calls(A, 0, now=20.0)
    policy.told_calls(B, 1, now=20.0)
    assert policy.choose(call(), 20.0) == [A, B]


def test_what_others_have_sent_counts_less_and_less() -> None:
    policy = routing([A, B])
    policy.sent(call(1_000, 0), A)
    policy.told_calls(B, 2, now=0.0)  # two calls like that one
    assert policy.choose(call(), 0.1 * CALLS_BELIEVED_S) == [A, B]
    assert policy.choose(call(), 0.9 * CALLS_BELIEVED_S) == [B, A]


def test_an_engine_that_keeps_little_is_not_sent_to_for_what_it_has_forgotten() -> None:
    policy = routing([A, B])
    policy.sent(call(1_000, 0, 1, 2, 3, 4), A).end()
    policy.told(A, ReplicaFacts(0, 0, kept=64), now=0.0)
    policy.sent(call(700, 0), A)
    assert policy.choose(call(1_000, 0, 1, 2, 3, 4), 0.0) == [B, A]


def test_replicas_that_stay_keep_their_work_and_those_that_go_are_forgotten() -> None:
    policy = routing([A, B])
    kept, lost = policy.sent(call(1_000, 100, 1), A), policy.sent(call(1_000, 100, 2), B)
    policy.replicas([A, C])
    assert policy.choose(call(), 0.0) == [C, A]
    lost.end()
    kept.end()
    policy.sent(call(1, 0), C)
    assert policy.choose(call(), 0.0) == [A, C]


def test_many_replicas_share_the_load() -> None:
    policy = routing(MANY)
    went = Counter(send(policy, call(session=f"t/{number}")).replica for number in range(4_000))
    assert len(went) == len(MANY)
    assert max(went.values()) <= 2 * 4_000 / len(MANY)
    assert len(MANY) > ALL


def test_equal_seeds_decide_equally() -> None:
    def decisions() -> list[ReplicaName]:
        policy = routing(MANY)
        return [send(policy, call(1_000, 100, number % 7)).replica for number in range(100)]

    assert decisions() == decisions()
