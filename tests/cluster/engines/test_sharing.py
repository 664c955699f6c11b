from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.engines.sharing import SharedTime

STEPS = st.lists(st.tuples(st.integers(0, 10**12), st.booleans()), max_size=60)


def test_each_call_is_told_its_part_while_others_come_and_go() -> None:
    time = SharedTime()
    first = time.begin(0)
    second = time.begin(1_000)
    assert time.end(first, 3_000) == 2_000
    assert time.end(second, 4_000) == 2_000
    assert time.busy(9_000) == 4_000


@given(STEPS)
def test_all_parts_together_are_the_time_that_the_engine_was_busy(steps: list[tuple[int, bool]]) -> None:
    """Whoever leaves is the one that came first or last, by the parity of the time."""
    time, now, told, busy = SharedTime(), 0, 0, 0
    inside: list[int] = []
    for passed, comes in steps:
        busy += passed if inside else 0
        now += passed
        if comes or not inside:
            inside.append(time.begin(now))
        else:
            told += time.end(inside.pop(0 if passed % 2 else -1), now)
    most = time.running
    told += sum(time.end(each, now) for each in inside)
    assert time.busy(now) == busy
    assert 0 <= busy - told < max(most, len(steps), 1)


@given(st.integers(1, 50), st.integers(0, 10**12))
def test_equal_calls_have_equal_parts_but_for_what_cannot_be_divided(calls: int, passed: int) -> None:
    time = SharedTime()
    beginnings = [time.begin(7) for _ in range(calls)]
    parts = [time.end(each, 7 + passed) for each in beginnings]
    assert all(0 <= part - passed // calls < calls for part in parts)


def test_a_part_so_far_grows_and_time_without_calls_is_nobodys() -> None:
    time = SharedTime()
    time.end(time.begin(0), 10)
    call = time.begin(1_000)
    assert (time.share(call, 1_004), time.share(call, 1_010)) == (4, 10)
    assert time.busy(1_010) == 20
