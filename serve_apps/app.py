"""The composition root: `serve run serve_apps.app:build config=deploy.yaml`.

One Serve application holds the gateway, the runner, the models and, with the embedded store, its keeper.
"""

# No postponed annotations here: Serve reads the builder's to know how to parse its arguments.

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from cluster.adapters import adapters_of
from cluster.autoscaling.deployment import replica_options
from cluster.config import ReplicatedSpec
from cluster.pools.deploy import QUIET, bind, placement_options
from cluster.services import pools_of
from cluster.topology import HEAD_RESOURCE
from serve_apps.cli.environment import MARKER
from serve_apps.deployments import AccountantReplica, GatewayReplica, RunnerReplica, StoreKeeper
from serve_apps.pipelines import load_plans
from serve_apps.planning import check
from serve_apps.scaling import scaling_of
from serve_apps.settings import GatewaySettings, RunnerSettings, Settings, load_settings

SURGE_PERCENT = 10
"""Of the replicas of gateway and runner, rounded up: how many more there are while they are replaced."""


_ON_HEAD = {HEAD_RESOURCE: 0.001}


class BuildArguments(BaseModel):
    """What `serve run` and a Serve config file may say."""

    config: Path
    revision: str = ""
    """Serve builds anew only where its config file is another. Nothing here reads it."""


def build(arguments: BuildArguments) -> Application:
    """The application of a deploy config.

    Raises `ConfigError` or `graphs.errors.PipelineError`, before anything is deployed.
    """
    settings = load_settings(_find(arguments.config))
    plans = load_plans(settings)  # every mistake in a graph shows now, not in a replica
    scaling = scaling_of(settings, plans)
    check(settings, plans, grows=not settings.node_pools and MARKER not in os.environ)
    drain_s = settings.gateway.max_timeout_s
    handles = {
        spec.name: bind(
            spec,
            settings.data_dir,
            drain_s,
            adapters_of(spec, settings.models),
            settings.weights,
            pools_of(spec, settings.node_pools),
        )
        for spec in settings.models
        if isinstance(spec, ReplicatedSpec)
    }
    runs = replica_options(settings.runner, watched=scaling is not None)
    runner = _deploy(RunnerReplica, settings, settings.runner, "runner", runs).bind(settings, handles)
    keeper = _keeper(settings)
    front = {"num_replicas": settings.gateway.replicas}
    return _deploy(GatewayReplica, settings, settings.gateway, "gateway", front).bind(
        settings, handles, runner if settings.graphs else None, keeper, _accountant(settings)
    )


def _accountant(settings: Settings) -> Application:
    """Who keeps the tables of usage, on the head node where these are a file there."""
    options: dict[str, Any] = {"num_cpus": 0}
    if settings.usage.url is None or settings.store.url is None:
        options["resources"] = _ON_HEAD
    return serve.deployment(AccountantReplica, name="accountant", ray_actor_options=options).bind(settings)


def _find(config: Path) -> Path:
    """Serve builds in a process of its own, whose working directory is not the caller's."""
    beside_the_packages = Path(__file__).parents[1] / config
    return config if config.is_file() or not beside_the_packages.is_file() else beside_the_packages


def _deploy(
    replica: Any,
    settings: Settings,
    part: GatewaySettings | RunnerSettings,
    name: str,
    replicas: dict[str, Any],
) -> Any:
    """A deployment whose replicas are replaced one after the other: the new one runs before the old one ends
    what it has begun. Not so where no two may be on one node: there may be no other."""
    surge = {} if part.spread == "require" else {"max_surge_percent": SURGE_PERCENT}
    return serve.deployment(
        replica,
        name=name,
        max_ongoing_requests=part.max_ongoing_requests,
        graceful_shutdown_timeout_s=settings.gateway.max_timeout_s,
        logging_config=QUIET,
        **placement_options(part, part.num_cpus, pools_of(part, settings.node_pools)),
        **surge,
        **replicas,
    )


def _keeper(settings: Settings) -> Application | None:
    """The embedded store's keeper, on the head node: that is where its files are."""
    if settings.store.url is not None:
        return None
    options = {"num_cpus": 0, "resources": _ON_HEAD}
    return serve.deployment(StoreKeeper, name="store", ray_actor_options=options).bind(settings)
