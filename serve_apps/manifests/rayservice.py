"""The system on Kubernetes: a RayService of the KubeRay operator, and the deploy config as a Secret.

    node_pools of the config  ─►  worker groups, and the head group
    the config, its files     ─►  a Secret, mounted into every pod
    store.url                 ─►  where the Global Control Store of Ray keeps its state, to outlive its head

Field names are those of `ray.io/v1`, KubeRay 1.5.1 and newer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.autoscaling.model import Scaling
from cluster.errors import ConfigError
from cluster.node_pools import NodePoolSpec
from serve_apps.manifests.bundle import CONFIG_NAME
from serve_apps.manifests.serve_config import revision_of, serve_config
from serve_apps.settings import Settings

NAME = "cluster-graph-hybrid"
ENVIRONMENT_SECRET = f"{NAME}-environment"
"""What pods have in their environment beside the variables here: keys of providers, the data key."""
PEPPER_SECRET = NAME
REDIS_PASSWORD_KEY = "redis-password"  # noqa: S105  (the name of a key, not one)
CONFIG_DIR = "/etc/cluster-graph-hybrid"
HOME = "/home/ray"
DATA_DIR = f"{HOME}/data"
PORT = 8000
UNSTARTED_S = 1800
"""How long weights may take to download before KubeRay counts a service as failed and starts another."""
HEAD_CPUS, HEAD_MEMORY_GIB = 2.0, 8.0
GPU_RESOURCE = "nvidia.com/gpu"

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Longer than a service takes to stop sending to a pod that leaves.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "10",
}


@dataclass(frozen=True)
class Images:
    """Names of the two images, which have the same Ray and the same release of ours."""

    cpu: str
    gpu: str

    def of(self, pool: NodePoolSpec) -> str:
        return self.cpu if pool.accelerator is None else self.gpu


def manifests(
    settings: Settings, files: Mapping[str, str], images: Images, scaling: Scaling | None = None
) -> list[dict[str, Any]]:
    """The Secret and the RayService, as mappings.

    Args:
        files: the deploy config and what it names, by their paths below the folder of the config.
        scaling: of what replicas come and go; None where none do.

    Raises `ConfigError` where the config leaves open what Kubernetes has to know.
    """
    redis = _redis(settings)
    pools = [pool for pool in settings.node_pools if not pool.head]
    if not pools:
        raise ConfigError(
            "node_pools: name the machines that the pods of workers are made for, as in"
            " `node_pools: [{name: cpu, cpus: 8, memory_gib: 32, nodes: {min: 1, max: 8}}]`",
            param="node_pools",
        )
    config = serve_config(
        f"{CONFIG_DIR}/{CONFIG_NAME}",
        host="0.0.0.0",  # noqa: S104  (a pod's own)
        port=PORT,
        revision=revision_of([text.encode() for text in files.values()], ()),
        scaling=scaling,
    )
    head = next((pool for pool in settings.node_pools if pool.head), None)
    pods = _Pods(files, images)
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME},
        "spec": {
            "serviceUnhealthySecondThreshold": UNSTARTED_S,
            "deploymentUnhealthySecondThreshold": UNSTARTED_S,
            "excludeHeadPodFromServeSvc": head is None,
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False),
            "rayClusterConfig": {
                "rayVersion": metadata.version("ray"),
                "authOptions": {"mode": "token"},
                "gcsFaultToleranceOptions": redis,
                "enableInTreeAutoscaling": any(pool.min_nodes < pool.max_nodes for pool in pools),
                "headGroupSpec": pods.head(head),
                "workerGroupSpecs": [pods.group(pool) for pool in pools],
            },
        },
    }
    return [pods.secret(), service]


def _redis(settings: Settings) -> dict[str, Any]:
    """Where Ray keeps what it must not forget when its head is replaced."""
    if settings.store.url is None or settings.store.url.startswith("unix:"):
        raise ConfigError(
            "store.url: pods share one store; give the URL of a Redis or Valkey that all can reach, as in"
            " `store: {url: redis://store:6379/0}`",
            param="store.url",
        )
    url = urlsplit(settings.store.url)
    options: dict[str, Any] = {"redisAddress": f"{url.scheme}://{url.hostname}:{url.port or 6379}"}
    if url.username:
        options["redisUsername"] = {"value": url.username}
    if url.password:
        options["redisPassword"] = {
            "valueFrom": {"secretKeyRef": {"name": PEPPER_SECRET, "key": REDIS_PASSWORD_KEY}}
        }
    return options


def _key(path: str) -> str:
    """Of a file in the Secret, whose keys have no slashes. No two paths have the same."""
    escaped = re.sub(r"[^A-Za-z0-9.-]", lambda found: f"_{ord(found[0]):x}_", path)
    return escaped.lstrip(".") or "_"


class _Pods:
    """Templates of pods, all alike but for their size and image."""

    def __init__(self, files: Mapping[str, str], images: Images) -> None:
        self._files = {_key(path): text for path, text in files.items()}
        self._items = [{"key": _key(path), "path": path} for path in files]
        said = json.dumps(self._files, sort_keys=True).encode()
        self._config = f"{NAME}-config-{hashlib.blake2b(said, digest_size=4).hexdigest()}"
        self._images = images

    def secret(self) -> dict[str, Any]:
        """The config, which may hold passwords, of the store and of the database of usage.

        Under another name where it has changed: pods that mount it are then other pods, and KubeRay moves the
        traffic once these answer. A change in its place would reach the running ones at different times.
        """
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._config},
            "type": "Opaque",
            "immutable": True,
            "stringData": self._files,
        }

    def head(self, pool: NodePoolSpec | None) -> dict[str, Any]:
        """Of its own it does no work: nothing may starve the process that repairs the rest."""
        cpus = pool.cpus if pool is not None else 0.0
        memory_gib = pool.memory_gib if pool is not None else HEAD_MEMORY_GIB
        image = self._images.of(pool) if pool is not None else self._images.cpu
        resources = _resources(max(cpus, HEAD_CPUS), memory_gib, _accelerators(pool))
        # Not loopback: the operator deploys through the dashboard's port, which asks for the token.
        start = {"num-cpus": _number(cpus), "dashboard-host": "0.0.0.0"}  # noqa: S104
        return {"rayStartParams": start, "template": self._template("ray-head", image, resources)} | _told(
            pool
        )

    def group(self, pool: NodePoolSpec) -> dict[str, Any]:
        """As many pods as the pool has nodes, each as large as one."""
        resources = _resources(pool.cpus, pool.memory_gib, _accelerators(pool))
        return {
            "groupName": re.sub(r"[^a-z0-9-]", "-", pool.name.lower()),
            "replicas": pool.min_nodes,
            "minReplicas": pool.min_nodes,
            "maxReplicas": pool.max_nodes,
            "rayStartParams": {},
            "template": self._template("ray-worker", self._images.of(pool), resources),
        } | _told(pool)

    def _template(self, container: str, image: str, resources: dict[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 100},
            "automountServiceAccountToken": container == "ray-head",  # its autoscaler makes pods
            "initContainers": [_pepper(image)],
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "env": [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()],
                    "envFrom": [{"secretRef": {"name": ENVIRONMENT_SECRET, "optional": True}}],
                    "resources": resources,
                    "volumeMounts": [
                        {"name": "data", "mountPath": DATA_DIR},
                        {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "config", "secret": {"secretName": self._config, "items": self._items}},
                {"name": "secret", "secret": {"secretName": PEPPER_SECRET}},
            ],
        }
        if GPU_RESOURCE in resources["limits"]:
            spec["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
        return {"metadata": {"labels": {"app": NAME}}, "spec": spec}


def _pepper(image: str) -> dict[str, Any]:
    """Puts the secret that keys are hashed with where the gateway reads it, readable by its owner alone as no
    mounted Secret is."""
    folder = f"{DATA_DIR}/secrets"
    copy = f"mkdir -p -m 700 {folder} && install -m 600 /secret/pepper {folder}/pepper"
    return {
        "name": "pepper",
        "image": image,
        "command": ["sh", "-c", copy],
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_DIR},
            {"name": "secret", "mountPath": "/secret", "readOnly": True},
        ],
    }


def _told(pool: NodePoolSpec | None) -> dict[str, Any]:
    """What Ray and its autoscaler know of the nodes of a pool before there is one."""
    if pool is None:
        return {}
    told: dict[str, Any] = {"labels": pool.node_labels()}
    special = {name: amount for name, amount in pool.node_resources().items() if name != "memory"}
    return told | {"resources": {name: _number(amount) for name, amount in special.items()}}


def _accelerators(pool: NodePoolSpec | None) -> int:
    return pool.accelerator.count if pool is not None and pool.accelerator is not None else 0


def _resources(cpus: float, memory_gib: float | None, accelerators: int) -> dict[str, Any]:
    """What a container asks for, and its limits: memory and accelerators are never lent, CPUs may be."""
    limits: dict[str, Any] = {}
    if memory_gib is not None:
        limits["memory"] = f"{round(memory_gib * 1024)}Mi"
    if accelerators:
        limits[GPU_RESOURCE] = accelerators
    return {"requests": {"cpu": _number(cpus)} | limits, "limits": limits}


def _number(amount: float) -> str:
    return str(int(amount)) if amount == int(amount) else str(amount)
