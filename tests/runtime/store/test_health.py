"""What is news of a store, and when one that is out is asked again."""

from __future__ import annotations

from runtime.store.health import FIRST_WAIT_S, LONGEST_WAIT_S, STEADY_S, Health


def test_only_changes_are_news() -> None:
    health = Health()
    assert not health.answered(1.0)
    assert [health.failed(2.0), health.failed(2.0), health.out] == [True, False, True]
    assert [health.answered(3.0), health.answered(3.0), health.out] == [True, False, False]


def test_it_is_asked_less_and_less_often() -> None:
    health = Health()
    health.failed(10.0)
    waits = [health.next_wait() for _ in range(8)]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-2:] == [LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_one_that_comes_and_goes_is_asked_no_more_often_than_before() -> None:
    health = Health()
    health.failed(0.0)
    assert [health.next_wait(), health.next_wait()] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S]
    health.answered(1.0)
    health.failed(1.0 + STEADY_S)
    assert health.next_wait() == 4 * FIRST_WAIT_S
    health.answered(20.0)
    health.failed(20.1 + STEADY_S)
    assert health.next_wait() == FIRST_WAIT_S
