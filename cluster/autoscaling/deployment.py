"""What Ray Serve is told of a deployment whose replicas come and go.

Delays are 0: the policy of the application waits by itself (`serve_policy`). Where Serve runs without that
policy, as after `serve run serve_apps.app:build`, its own one goes by `target_ongoing_requests`.
"""

from __future__ import annotations

import warnings
from typing import Any

from ray.serve.config import AutoscalingConfig

from cluster.autoscaling.config import ScaledSpec

TOLD_EVERY_S = 1.0
"""How often replicas, and those who call them, tell the controller of their calls. Serve's ten seconds are as
long as a whole burst."""
LOOK_BACK_S = 2.0


def replica_options(spec: ScaledSpec, *, watched: bool = False) -> dict[str, Any]:
    """Options of a deployment that say how many replicas it has.

    `watched`: the policy is told of it though their number is fixed.
    """
    if not spec.scales and not watched:
        return {"num_replicas": spec.most_replicas}
    with warnings.catch_warnings():
        # Serve would have the interval in its environment, where it holds for every other application too.
        warnings.simplefilter("ignore", DeprecationWarning)
        scaled = AutoscalingConfig(
            min_replicas=spec.least_replicas,
            max_replicas=spec.most_replicas,
            target_ongoing_requests=spec.at_once,
            metrics_interval_s=TOLD_EVERY_S,
            look_back_period_s=LOOK_BACK_S,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
        )
    return {"autoscaling_config": scaled}
