"""The composition root: `serve run serve_apps.app:build config=deploy.yaml`.

One Serve application holds the gateway, the runner, the models and, with the embedded store, its keeper.
"""

# No postponed annotations here: Serve reads the builder's to know how to parse its arguments.

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from cluster.config import OpenAISpec
from cluster.pools.deploy import bind
from serve_apps.deployments import AccountantReplica, GatewayReplica, RunnerReplica, StoreKeeper
from serve_apps.pipelines import load_plans
from serve_apps.settings import Settings, load_settings

SURGE_PERCENT = 10
"""Of the replicas of gateway and runner, rounded up: how many more there are while they are replaced."""


_ON_HEAD = {"node:__internal_head__": 0.001}


class BuildArguments(BaseModel):
    """What `serve run` and a Serve config file may say."""

    config: Path


def build(arguments: BuildArguments) -> Application:
    """The application of a deploy config.

    Raises `ConfigError` or `graphs.errors.PipelineError`, before anything is deployed.
    """
    settings = load_settings(_find(arguments.config))
    load_plans(settings)  # every mistake in a graph shows now, not in a replica
    drain_s = settings.gateway.max_timeout_s
    handles = {
        spec.name: bind(spec, settings.data_dir, drain_s)
        for spec in settings.models
        if not isinstance(spec, OpenAISpec)
    }
    runner = _deploy(RunnerReplica, settings.runner, "runner", drain_s).bind(settings, handles)
    keeper = _keeper(settings)
    return _deploy(GatewayReplica, settings.gateway, "gateway", drain_s).bind(
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


def _deploy(replica: Any, options: Any, name: str, drain_s: float) -> Any:
    """A deployment whose replicas are replaced one after the other: the new one runs before the old one ends
    what it has begun."""
    return serve.deployment(
        replica,
        name=name,
        num_replicas=options.replicas,
        max_ongoing_requests=options.max_ongoing_requests,
        ray_actor_options={"num_cpus": options.num_cpus},
        graceful_shutdown_timeout_s=drain_s,
        max_surge_percent=SURGE_PERCENT,
    )


def _keeper(settings: Settings) -> Application | None:
    """The embedded store's keeper, on the head node: that is where its files are."""
    if settings.store.url is not None:
        return None
    options = {"num_cpus": 0, "resources": _ON_HEAD}
    return serve.deployment(StoreKeeper, name="store", ray_actor_options=options).bind(settings)
