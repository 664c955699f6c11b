"""The size of batches, as it follows from how long they took."""

from __future__ import annotations

from random import Random

import pytest

from cluster.admission.batches import GROWTH, Service

LEAST, MOST = 64, 65_536


def service() -> Service:
    return Service(LEAST, LEAST, MOST)


def test_the_time_of_batches_is_a_line() -> None:
    made = service()
    assert made.line == (0.0, 0.0)
    made.learn(10, 0.010)
    assert made.line == (0.0, 0.001)
    for size in (10, 100, 50, 200) * 10:
        made.learn(size, 0.004 + 0.0002 * size)
    assert made.line == pytest.approx((0.004, 0.0002), rel=0.05)
    assert made.size_within(60.0) == pytest.approx(0.95 / 0.05 * 0.004 / 0.0002, rel=0.05)
    assert made.size_within(0.03) == pytest.approx(130, abs=3)
    assert made.size_within(0.0) == LEAST


def test_a_line_that_has_changed_is_learned_anew() -> None:
    made = service()
    for size in (10, 100, 50) * 30:
        made.learn(size, 0.1)
    for size in (10, 100, 50) * 60:
        made.learn(size, 0.001 * size)
    assert made.line == pytest.approx((0.0, 0.001), abs=0.0005)


def test_batches_of_one_size_lead_to_others() -> None:
    made = service()
    for _ in range(20):
        made.learn(640, 0.3)
    assert made.size_within(60.0) == LEAST
    made.learn(64, 0.03)
    assert made.size_within(60.0) < 640
    small = Service(1, 8, 256)
    for _ in range(20):
        small.learn(1, 1.0)
    assert small.size_within(60.0) == 16
    assert small.size_within(1.5) == 1


def test_batches_grow_as_far_as_is_known() -> None:
    made = service()
    assert made.size_within(60.0) == LEAST
    for size in (64, 640):
        made.learn(size, 0.3)  # more costs nothing
    assert made.size_within(60.0) == GROWTH * 640
    for _ in range(100):
        made.learn(64, 0.3)
    assert made.size_within(60.0) < 640
    made.learn(MOST, 0.3)
    assert made.size_within(60.0) == MOST


@pytest.mark.parametrize(("fixed", "each", "best"), [(0.02, 0.001, 256), (0.001, 0.001, 19), (0.0, 0.01, 8)])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_busy_queue_finds_the_size_that_pays(fixed: float, each: float, best: int, noise: float) -> None:
    """Where more wait than fit. Times that vary do not lead it into batches that save nothing."""
    random, made, sizes = Random(7), Service(1, 8, 256), []
    for _ in range(200):
        sizes.append(made.size_within(60.0))
        made.learn(sizes[-1], (fixed + each * sizes[-1]) * (1 + random.uniform(0, noise)))
    assert max(sizes[:20]) >= 0.9 * best
    assert min(sizes) >= 8
    if not noise:
        assert sorted(sizes)[100] == pytest.approx(best, rel=0.1)
