from __future__ import annotations

from itertools import pairwise

import pytest

from cluster.admission.urgency import patience_s, policy_of
from runtime.compiler.passes.order import STEPS_PER_SECOND
from runtime.drive import PRIORITIES
from runtime.executor.warming import BEHIND_ALL


@pytest.mark.parametrize(
    ("priority", "patience"),
    [
        (0, 0),
        (50, 5),
        (1_000, 60),
        (10_000, 120),
        (10_030, 123),
        (-10_000, -120),
        (-9_950, -115),
        (10**6, 420),
    ],
)
def test_priorities_are_seconds_of_patience(priority: int, patience: float) -> None:
    assert patience_s(priority) == patience


def test_more_patience_is_never_less() -> None:
    for lower, higher in pairwise(range(-30_000, 130_000, 7)):
        assert patience_s(lower) <= patience_s(higher)


def test_it_reads_what_compiler_and_runner_write() -> None:
    assert [policy_of(PRIORITIES[name]) for name in ("high", "normal", "low")] == [-1, 0, 1]
    assert patience_s(3 * STEPS_PER_SECOND) == 3
    assert patience_s(BEHIND_ALL) > patience_s(PRIORITIES["low"] + 1000)
