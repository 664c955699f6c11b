"""Who decides on replicas: ours, and Ray Serve's own policy, each deployment by itself.

Serve's is put together of the functions that Serve itself calls, with the clock passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.serve.autoscaling_policy import _apply_delay_logic, _apply_scaling_factors
from ray.serve.config import AutoscalingConfig

from benchmarks.simulate.pipeline import GRAPH, RUNNER, Stage
from cluster.autoscaling.model import PoolScale, Scaling, Seen
from cluster.autoscaling.policy import Policy

WAIT_S = 3.0
"""The objective: 95 of 100 runs wait no longer than this in all."""
FULL = 0.8
"""Of the calls that a replica does at once, how many Serve is asked to give it."""
WRONG = 2.0
"""How many times too long the plan takes calls to be, before any was measured."""
LIKELY = 0.5
"""How often the plan expects a stage to be visited that is not always."""


class Delays(NamedTuple):
    """How long less must be enough, and nothing come; and of Serve's policy, how long more must be wanted,
    over how long it takes the mean, and how often it is told."""

    down_s: float
    zero_s: float
    up_s: float
    look_back_s: float
    told_every_s: int


DEFAULTS = Delays(600.0, 600.0, up_s=30.0, look_back_s=30.0, told_every_s=10)
"""Of Serve."""
QUICK = Delays(60.0, 300.0, up_s=0.0, look_back_s=2.0, told_every_s=1)
"""Ours."""


class Ours:
    """The policy for the whole application."""

    def __init__(self, stages: Mapping[str, Stage], delays: Delays) -> None:
        length = sum(stage.seconds * stage.share for name, stage in stages.items() if name != RUNNER)
        pools = {
            name: PoolScale(0, stage.most, stage.at_once, WRONG * (stage.seconds or length))
            for name, stage in stages.items()
        }
        visits = {name: 1.0 if stage.share == 1.0 else LIKELY for name, stage in stages.items()}
        paths = {GRAPH: visits}
        self._policy = Policy(Scaling(pools, RUNNER, paths, WAIT_S, 0.95, delays.down_s, delays.zero_s))

    def decide(self, seen: Mapping[str, Seen], now: float) -> Mapping[str, int]:
        return self._policy.decide(seen, now).replicas


class Ray:
    """`replica_queue_length_autoscaling_policy` for each deployment."""

    def __init__(self, stages: Mapping[str, Stage], delays: Delays) -> None:
        self._delays = delays
        self._deployments = {name: _Deployment(stage, delays) for name, stage in stages.items()}

    def decide(self, seen: Mapping[str, Seen], now: float) -> Mapping[str, int]:
        return {name: self._deployments[name].decide(each, now) for name, each in seen.items()}


class _Deployment:
    def __init__(self, stage: Stage, delays: Delays) -> None:
        self._most = stage.most
        self._config = AutoscalingConfig(
            min_replicas=0,
            max_replicas=stage.most,
            target_ongoing_requests=FULL * stage.at_once,
            upscale_delay_s=delays.up_s,
            downscale_delay_s=delays.down_s,
            downscale_to_zero_delay_s=delays.zero_s,
        )
        self._delays = delays
        self._ongoing: deque[float] = deque(maxlen=max(1, round(delays.look_back_s)))
        self._told = 0.0
        self._looks = 0
        self._state: dict[str, Any] = {}

    def decide(self, seen: Seen, now: float) -> int:
        self._ongoing.append(seen.ongoing)
        if self._looks % self._delays.told_every_s == 0:
            self._told = sum(self._ongoing) / len(self._ongoing)
        self._looks += 1
        if not seen.running:
            if seen.ongoing > 0:  # callers tell of the first call that finds nobody at once
                return max(1, seen.replicas)
            desired: float = seen.replicas
        else:
            desired = seen.running * self._told / (self._config.target_ongoing_requests * seen.running)
        scaled: int = _apply_scaling_factors(desired, seen.running, self._config)
        if not seen.running and scaled > 0:
            return min(self._most, scaled)
        decided: int
        decided, self._state = _apply_delay_logic(
            max(0, scaled), seen.replicas, self._config, self._state, _now=now
        )
        return min(self._most, decided)
