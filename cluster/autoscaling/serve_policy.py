"""What Ray Serve's controller calls for the whole application, ten times a second.

Serve puts bounds around what is decided here, and two rules of its own: a deployment without replicas for
which something waits gets one at once, and one with several goes down to one before it goes to none, a tenth
of a second later.

It carries the class below to the controller as it is; everything else is imported there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.autoscaling.model import Decision, Scaling, Seen
from cluster.autoscaling.policy import Policy

PATH = "cluster.autoscaling.serve_policy:ApplicationPolicy"


class ApplicationPolicy:
    """Made once for each deployment of the application, with the fields of `Scaling` as plain types."""

    def __init__(self, **scaling: Any) -> None:
        """Raises `msgspec.ValidationError`."""
        self._policy = Policy(msgspec.convert(scaling, Scaling))
        self._log = logging.getLogger("ray.serve")

    def __call__(self, contexts: Mapping[Any, Any]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Replicas by the id of the deployment, from Serve's `AutoscalingContext` of each; and no state, for
        it is kept here."""
        ids = {context.deployment_name: each for each, context in contexts.items()}
        seen = {name: self._seen(contexts[each]) for name, each in ids.items()}
        decision = self._policy.decide(seen, time.time())
        self._say(seen, decision)
        return {ids[name]: count for name, count in decision.replicas.items()}, {}

    def _seen(self, context: Any) -> Seen:
        told: dict[str, dict[str, float]] = {}
        for name, replicas in (context.raw_metrics or {}).items():
            for replica, series in replicas.items():
                if series:
                    told.setdefault(str(replica), {})[name] = float(series[-1].value)
        return Seen(
            replicas=context.target_num_replicas,
            running=context.current_num_replicas,
            ongoing=float(context.total_num_requests),
            told=told,
        )

    def _say(self, seen: Mapping[str, Seen], decision: Decision) -> None:
        changed = [
            f"{name} from {seen[name].replicas} to {count} ({decision.why[name]})"
            for name, count in decision.replicas.items()
            if count != seen[name].replicas
        ]
        if changed:
            self._log.info("Replicas of the application: %s.", "; ".join(changed))
