"""What Serve is told of a deployment that scales."""

from __future__ import annotations

from cluster.autoscaling.config import ReplicaRange, ScaledSpec
from cluster.autoscaling.deployment import replica_options


def test_a_fixed_number_is_one() -> None:
    assert replica_options(ScaledSpec(replicas=3)) == {"num_replicas": 3}


def test_a_range_scales_without_delays_of_serve() -> None:
    (told,) = replica_options(ScaledSpec(replicas=ReplicaRange(min=0, max=4, at_once=8))).values()
    assert (told.min_replicas, told.max_replicas, told.target_ongoing_requests) == (0, 4, 8)
    assert (told.upscale_delay_s, told.downscale_delay_s, told.downscale_to_zero_delay_s) == (0, 0, None)
    assert told.metrics_interval_s < told.look_back_period_s < 10


def test_a_fixed_number_can_be_watched() -> None:
    (told,) = replica_options(ScaledSpec(replicas=3), watched=True).values()
    assert (told.min_replicas, told.max_replicas) == (3, 3)
