"""The policy as Serve calls it: with Serve's own contexts, from Serve's own config."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from cluster.autoscaling.model import CALLS, PoolScale, Scaling, begun
from cluster.autoscaling.serve_policy import PATH, ApplicationPolicy

SCALING = Scaling(
    pools={name: PoolScale(0, 4, 2, 1.0) for name in ("runner", "model-a", "model-b")},
    runner="runner",
    paths={"g": {"runner": 1, "model-a": 1, "model-b": 1}},
    wait_s=1.0,
    in_time=0.95,
    down_after_s=60.0,
    zero_after_s=120.0,
)
KWARGS = msgspec.to_builtins(SCALING)


def context(name: str, replicas: int, ongoing: float = 0.0, **counters: float) -> AutoscalingContext:
    deployment = DeploymentID(name, "app")
    ids = [ReplicaID(f"{name}-{number}", deployment) for number in range(replicas)]
    raw = {
        counter: {each: [TimeStampedValue(0.0, 0.0), TimeStampedValue(1.0, value)] for each in ids}
        for counter, value in counters.items()
    }
    return AutoscalingContext(
        deployment_id=deployment,
        deployment_name=name,
        app_name="app",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=ids,
        total_num_requests=lambda: ongoing,
        total_queued_requests=lambda: 0.0,
        aggregated_metrics={},
        raw_metrics=lambda: raw,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=4,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=None,
    )


def decided(policy: Any, *contexts: AutoscalingContext) -> dict[str, int]:
    replicas, state = policy({each.deployment_id: each for each in contexts})
    assert state == {}
    return {deployment.name: count for deployment, count in replicas.items()}


def test_what_waits_for_a_runner_wakes_the_path(caplog: pytest.LogCaptureFixture) -> None:
    policy = ApplicationPolicy(**KWARGS)
    asleep = [context("model-a", 0), context("model-b", 0)]
    assert set(decided(policy, context("runner", 0), *asleep).values()) == {0}
    with caplog.at_level(logging.INFO, "ray.serve"):
        woken = decided(policy, context("runner", 0, 1.0), *asleep)
        assert woken == {"runner": 1, "model-a": 1, "model-b": 1}
    (line,) = caplog.messages
    assert "model-a from 0 to 1" in line
    assert "model-b from 0 to 1" in line


def test_the_newest_of_what_replicas_tell_counts() -> None:
    policy = ApplicationPolicy(**KWARGS)
    models = [context("model-a", 1), context("model-b", 1)]
    assert set(decided(policy, context("runner", 1, **{begun("g"): 0}), *models).values()) == {1}
    many = context("runner", 1, **{begun("g"): 300, CALLS: 300})
    assert decided(policy, many, *models) == {"runner": 4, "model-a": 4, "model-b": 4}


def test_serve_makes_it_of_plain_types_alone() -> None:
    """As the controller does: the class comes pickled, its arguments as JSON."""
    policy = AutoscalingPolicy(policy_function=PATH, policy_kwargs=KWARGS)
    carried = AutoscalingPolicy.from_serialized_policy_def(
        {"policy_function": PATH, "policy_kwargs": policy.policy_kwargs}, policy.get_serialized_policy_def()
    )
    made = carried.get_policy()(**carried.policy_kwargs)
    assert decided(made, context("model-a", 0, 3.0)) == {"model-a": math.ceil(3.0 / 10)}


def test_what_is_not_understood_is_named() -> None:
    with pytest.raises(msgspec.ValidationError, match="pools"):
        ApplicationPolicy(**KWARGS | {"pools": 3})
