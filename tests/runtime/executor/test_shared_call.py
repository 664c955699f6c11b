"""The time that a shared call has."""

from runtime.executor.shared_call import MAX_LONGER_S, longer


def test_a_shared_call_has_twice_the_time_of_the_run_that_began_it():
    assert longer(deadline=130.0, now=100.0) == 160.0


def test_a_long_time_is_not_doubled():
    assert longer(deadline=10_100.0, now=100.0) == 10_100.0 + MAX_LONGER_S


def test_what_is_over_stays_over():
    assert longer(deadline=90.0, now=100.0) == 90.0
