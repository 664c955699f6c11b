"""`python -m serve_apps.redeploy CONFIG ADDRESS`: deploys the application onto the Ray that runs.

`serve run` would do so too, but takes all of Serve down where the new version cannot start. Here the replicas
of the last version go on, because they are only ended when their successors run.

An application whose replicas come and go is deployed as by a config file of Serve: its policy is taken from
nowhere else.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from uuid import uuid4

import ray
from ray import serve
from ray.serve import context as serve_context
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from cluster.autoscaling.model import Scaling
from cluster.errors import ClusterError
from serve_apps.app import BuildArguments, build
from serve_apps.manifests.serve_config import serve_config
from serve_apps.pipelines import load_plans
from serve_apps.scaling import scaling_of
from serve_apps.settings import load_settings

NAME = "default"
"""Of the application, as `serve run` calls it."""
LOOK_EVERY_S = 0.5


def main(config: str, address: str) -> int:
    """Returns once every new replica runs. The exit status: 1 where one cannot start."""
    ray.init(address=address, namespace="serve", log_to_driver=False)
    try:
        deploy(Path(config))
    except (RuntimeError, ClusterError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def deploy(config: Path) -> None:
    """Returns once it runs. Raises `RuntimeError` and `ClusterError` where it cannot."""
    settings = load_settings(config)
    scaling = scaling_of(settings, load_plans(settings))
    if scaling is None:
        serve.run(build(BuildArguments(config=config)), name=NAME)
    else:
        _as_file(config, scaling)


def _as_file(config: Path, scaling: Scaling) -> None:
    client = serve_context._get_global_client()
    told = serve_config(
        str(config),
        host=client.http_config.host or "127.0.0.1",
        port=client.http_config.port,
        revision=uuid4().hex,  # the config may name files that have changed
        scaling=scaling,
        name=NAME,
    )
    client.deploy_apps(ServeDeploySchema.model_validate(told))
    while True:
        application = serve.status().applications[NAME]
        if application.status == ApplicationStatus.RUNNING:
            return
        if application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise RuntimeError(application.message)
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
