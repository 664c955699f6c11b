"""Replicas for whole paths, from a clock and counters that the test makes up.

`rag`: the runner, then `embed` once (0.1 s, one at a time), then `llm` twice (2 s, four at a time).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from cluster.autoscaling.model import (
    CALLS,
    ENDED,
    SECONDS,
    Decision,
    PoolScale,
    Scaling,
    Seen,
    begun,
    running,
)
from cluster.autoscaling.policy import Policy
from cluster.autoscaling.staffing import servers

RUNNER, EMBED, LLM, CHAT = "runner", "model-embed", "model-llm", "model-chat"
SCALING = Scaling(
    pools={
        RUNNER: PoolScale(least=0, most=4, at_once=100, seconds=4.1),
        EMBED: PoolScale(least=0, most=8, at_once=1, seconds=0.1),
        LLM: PoolScale(least=0, most=40, at_once=4, seconds=2.0, per_hour=1.0),
        CHAT: PoolScale(least=0, most=8, at_once=4, seconds=1.0, per_hour=2.0),
    },
    runner=RUNNER,
    paths={"rag": {RUNNER: 1, EMBED: 1, LLM: 2}, "talk": {RUNNER: 1, CHAT: 1}},
    wait_s=3.0,
    in_time=0.95,
    down_after_s=60.0,
    zero_after_s=120.0,
)


class Application:
    """Counters that grow by so much a second, and replicas that run as soon as they are decided."""

    def __init__(self, scaling: Scaling = SCALING) -> None:
        self.policy = Policy(scaling)
        self.now = 1000.0
        self.replicas = {name: pool.least for name, pool in scaling.pools.items()}
        self.counters: dict[str, dict[str, float]] = {name: {} for name in scaling.pools}
        self.ongoing = dict.fromkeys(scaling.pools, 0.0)

    def count(self, pool: str, **grown: float) -> None:
        counters = self.counters[pool]
        for name, amount in grown.items():
            counters[name] = counters.get(name, 0.0) + amount

    def decide(self) -> Decision:
        seen = {
            name: Seen(
                count, count, self.ongoing[name], {f"{name}-0": dict(self.counters[name])} if count else {}
            )
            for name, count in self.replicas.items()
        }
        decision = self.policy.decide(seen, self.now)
        self.replicas = decision.replicas
        return decision

    def seconds(self, count: int) -> Iterator[int]:
        for second in range(count):
            self.now += 1.0
            yield second

    def begin(self, graph: str, runs: float) -> None:
        self.count(RUNNER, **{CALLS: runs, begun(graph): runs})


def staffed(load: float, at_once: int, patience: float, seconds: float) -> int:
    needed = max(servers(load, patience / seconds, 0.05), load / 0.85)
    return -(-int(needed + 0.999999) // at_once)


def test_all_pools_of_a_path_scale_in_the_same_decision() -> None:
    """Before any call has come to the second of them."""
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    for _ in application.seconds(20):
        application.begin("rag", 8)
        application.decide()
    # 8 runs a second: 0.8 calls of embed at once and 32 of llm, of which each may wait for a second.
    assert application.replicas == {
        RUNNER: 1,
        EMBED: staffed(0.8, 1, 1.0, 0.1),
        LLM: staffed(32.0, 4, 1.0, 2.0),
        CHAT: 1,
    }
    assert (application.replicas[EMBED], application.replicas[LLM]) == (2, 10)


def test_calls_from_elsewhere_come_on_top() -> None:
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    for _ in application.seconds(180):
        application.begin("rag", 4)
        application.count(LLM, calls=8 + 6)
        application.decide()
    assert application.replicas[LLM] == staffed((8 + 6) * 2.0, 4, 1.0, 2.0)
    application.now += 1
    application.begin("rag", 400)
    application.decide()
    assert application.replicas[LLM] == 40
    why = application.decide().why[LLM]
    assert "calls at once" in why


def test_what_calls_take_is_measured() -> None:
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    for _ in application.seconds(60):
        application.begin("rag", 2)
        application.count(LLM, **{CALLS: 4, ENDED: 4, SECONDS: 4 * 5.0})
        application.decide()
    assert application.replicas[LLM] == staffed(4 * 5.0, 4, 1.0, 5.0)


def test_visits_that_are_not_made_are_planned_for_no_more() -> None:
    """The plan foresees two visits of a run; half of them do not happen."""
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    for _ in application.seconds(1200):
        application.begin("rag", 8)
        application.count(LLM, calls=8)
        application.decide()
    assert application.replicas[LLM] == pytest.approx(staffed(8 * 2.0, 4, 1.0, 2.0), abs=1)


def test_more_comes_at_once_and_less_when_it_has_been_enough_for_a_while() -> None:
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    application.now += 1
    application.begin("rag", 24)
    application.decide()
    many = application.replicas[LLM]
    assert many == staffed(8 * 4.0, 4, 1.0, 2.0)  # 24 in three seconds
    fell = 0.0
    began = application.now
    for _ in application.seconds(100):
        application.decide()
        if application.replicas[LLM] < many and not fell:
            fell = application.now - began
    assert 3 + 60 <= fell <= 3 + 62  # it was wanted for as long as those three seconds were the last
    assert application.replicas[LLM] == staffed(24 / 60 * 4.0, 4, 1.0, 2.0) == 1  # for the last minute's mean


def test_a_path_goes_to_nothing_together() -> None:
    application = Application()
    application.ongoing[RUNNER] = 1.0
    application.decide()
    application.ongoing[RUNNER] = 0.0
    ended = {}
    for second in application.seconds(200):
        if second == 10:
            application.begin("rag", 1)
            application.counters[RUNNER][running("rag")] = 1
        application.ongoing[LLM] = 1.0 if second in range(12, 33) else 0.0
        if second == 30:
            application.counters[RUNNER][running("rag")] = 0
        application.decide()
        for name, count in application.replicas.items():
            if not count:
                ended.setdefault(name, second)
    # The last call was seen two seconds after the run was over; the graph that was not asked went before.
    assert ended.pop(CHAT) < 125
    assert set(ended) == {RUNNER, EMBED, LLM}
    assert set(ended.values()) == {152}


def test_it_comes_back_together() -> None:
    """Nobody knows yet of which graph the run is that waits for the runner."""
    application = Application()
    application.decide()
    assert application.replicas == dict.fromkeys(SCALING.pools, 0)
    application.now += 1
    application.ongoing[RUNNER] = 1.0
    application.decide()
    assert application.replicas == dict.fromkeys(SCALING.pools, 1)


def test_asking_a_runner_whether_it_is_ready_wakes_nothing() -> None:
    """One that does not go to nothing is asked while it starts."""
    pools = {name: pool for name, pool in SCALING.pools.items() if name != RUNNER}
    policy = Policy(msgspec.structs.replace(SCALING, pools=pools))
    seen = {name: Seen(0, 0, 0.0, {}) for name in pools}
    policy.decide(seen, 0.0)
    assert set(policy.decide(seen | {RUNNER: Seen(1, 0, 1.0, {})}, 1.0).replicas.values()) == {0}


def test_a_run_wakes_its_own_path_alone() -> None:
    application = Application()
    application.replicas |= {RUNNER: 1}
    application.decide()
    application.now += 1
    application.begin("rag", 1)
    application.decide()
    assert application.replicas == {RUNNER: 1, EMBED: 1, LLM: 1, CHAT: 0}


def test_a_call_to_a_model_wakes_it_alone() -> None:
    application = Application()
    application.decide()
    application.now += 1
    application.ongoing[CHAT] = 1.0
    application.decide()
    assert application.replicas == {RUNNER: 0, EMBED: 0, LLM: 0, CHAT: 1}


def test_what_waits_is_worked_off() -> None:
    application = Application()
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    application.now += 1
    application.ongoing[LLM] = 84.0
    application.decide()
    assert application.replicas[LLM] == 4  # 80 wait, for 2 s of work each, within ten seconds: 16 at once


def test_least_and_most_hold() -> None:
    pools = SCALING.pools | {LLM: PoolScale(least=2, most=3, at_once=4, seconds=2.0)}
    application = Application(msgspec.structs.replace(SCALING, pools=pools))
    for _ in application.seconds(300):
        application.decide()
        assert application.replicas[LLM] == 2
    application.ongoing[LLM] = 1000.0
    application.decide()
    assert application.replicas[LLM] == 3


def test_the_budget_is_kept_and_said() -> None:
    application = Application(msgspec.structs.replace(SCALING, max_per_hour=12.0))
    application.replicas = dict.fromkeys(SCALING.pools, 1)
    application.decide()
    application.now += 1
    application.begin("rag", 80)
    application.begin("talk", 160)
    decision = application.decide()
    cost = application.replicas[LLM] * 1.0 + application.replicas[CHAT] * 2.0
    assert 10.0 < cost <= 12.0
    assert "within the budget" in decision.why[LLM]
    assert "within the budget" in decision.why[CHAT]


def test_a_policy_that_begins_anew_takes_nothing_away_at_first() -> None:
    """As after the controller was killed: what replicas have counted is no burst either."""
    application = Application()
    application.replicas = {RUNNER: 1, EMBED: 2, LLM: 9, CHAT: 0}
    application.begin("rag", 1_000_000)
    application.count(LLM, calls=2_000_000)
    for _ in application.seconds(59):
        application.decide()
        assert application.replicas == {RUNNER: 1, EMBED: 2, LLM: 9, CHAT: 0}
    for _ in application.seconds(5):
        application.decide()
    assert application.replicas[LLM] == 1


def test_pools_that_are_not_there_are_not_decided_on() -> None:
    policy = Policy(SCALING)
    decision = policy.decide({LLM: Seen(1, 1, 0.0, {}), "gateway": Seen(2, 2, 1.0, {})}, 0.0)
    assert decision.replicas == {LLM: 1}
