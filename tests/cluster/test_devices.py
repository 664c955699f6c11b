from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.devices import Left, taken, untouched, whole


@pytest.mark.parametrize(
    ("left", "amount", "after"),
    [
        ((1, 1), 0.6, (0.4, 1)),
        ((0.4, 1), 0.6, (0.4, 0.4)),
        ((0.4, 0.4), 0.6, None),
        ((0.4, 0.4), 0.4, (0, 0.4)),
        ((1, 0.5, 0.7), 0.5, (1, 0, 0.7)),
        ((0.9, 1, 1), 1, (0.9, 0, 1)),
        ((0.9, 1, 1), 2, (0.9, 0, 0)),
        ((0.9, 1, 1), 3, None),
        ((0.5,), 0, (0.5,)),
        ((), 0, ()),
        ((), 0.1, None),
    ],
)
def test_a_part_is_of_the_fullest_gpu_with_room_and_more_are_whole_ones(
    left: Left, amount: float, after: Left | None
) -> None:
    assert taken(left, amount) == after


@pytest.mark.parametrize("count", [3, 7, 9, 10, 30, 100])
def test_parts_add_up_to_a_gpu_whatever_binary_fractions_say(count: int) -> None:
    part = int(10_000 / count) / 10_000
    left: Left | None = untouched(1)
    for _ in range(count):
        assert left is not None
        left = taken(left, part)
    assert left is not None
    assert left[0] == pytest.approx(1 - count * part, abs=1e-9)
    assert taken(left, part) is None


@given(st.integers(0, 4), st.lists(st.one_of(st.integers(1, 10_000), st.sampled_from([20_000]))))
def test_no_gpu_is_given_out_more_than_once(count: int, amounts: list[int]) -> None:
    """In ten-thousandths, as Ray counts."""
    left, given_out = untouched(count), 0
    for amount in amounts:
        after = taken(left, amount / 10_000)
        room = [round(free * 10_000) for free in left]
        if after is None:
            assert max(room, default=0) < min(amount, 10_000) or room.count(10_000) < amount // 10_000
        else:
            left, given_out = after, given_out + amount
    assert all(0 <= free <= 1 for free in left)
    assert round(sum(left) * 10_000) == count * 10_000 - given_out
    assert whole(left) == sum(free == 1 for free in left)
