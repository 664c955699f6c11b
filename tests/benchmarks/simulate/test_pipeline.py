"""Pools that come and go: a queue is as theory says, and nothing is lost or free."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

import pytest

from benchmarks.scenarios.autoscaling import ARMS, STAGES, arrivals
from benchmarks.simulate.pipeline import RUNNER, Outcome, Stage, play
from cluster.autoscaling.model import Seen


class Fixed:
    """Always so many."""

    def __init__(self, **replicas: int) -> None:
        self._replicas = replicas

    def decide(self, seen: Mapping[str, Seen], now: float) -> Mapping[str, int]:
        return self._replicas


def waits(outcome: Outcome) -> list[float]:
    return [run.waited_s for run in outcome.runs]


def test_a_pool_waits_as_theory_says() -> None:
    """M/M/2 at load 0.8: the mean wait is C(2, 1.6) / (2 - 1.6) = 0.711 / 0.4 service times."""
    stages = {RUNNER: Stage(10_000, 0.0, 0.0, 1), "a": Stage(1, 1.0, 0.0, 2)}
    came = arrivals(lambda _: 1.6, 40_000, 3)
    outcome = play(came, stages, Fixed(runner=1, a=2), 3)
    assert mean(waits(outcome)) == pytest.approx(0.711 / 0.4, rel=0.1)


def test_a_replica_takes_its_time_to_start_and_costs_from_then_on() -> None:
    stages = {RUNNER: Stage(10, 0.0, 0.0, 1), "a": Stage(1, 0.001, 30.0, 1)}
    outcome = play([0.5], stages, Fixed(runner=1, a=1), 1)
    assert waits(outcome) == [pytest.approx(29.5, abs=0.1)]
    assert outcome.replica_s["a"] == 31


@pytest.mark.parametrize("arm", ARMS)
def test_every_run_ends_under_every_scaler(arm: str) -> None:
    came = arrivals(lambda at: 2.0 if at > 60 else 0.0, 200, 1)
    first, second = (play(came, STAGES, ARMS[arm][1](), 1) for _ in range(2))
    assert sorted(run.at for run in first.runs) == came
    assert first == second
    assert all(seconds > 0 for seconds in first.replica_s.values())
