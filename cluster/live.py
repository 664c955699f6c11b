"""The cluster that runs, as Ray tells of it: the one place that asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import ray
from ray.serve import context as serve_context

from cluster.node_pools import NodePoolSpec
from cluster.topology import Node, Topology, with_pools

SOURCE = "the live cluster"
_NOT_PLANNED = ("memory", "object_store_memory")
"""What Ray measures when a node starts: it says how much was free then."""
_ANSWER_S = 30.0


class Deployed(msgspec.Struct, frozen=True):
    """A Serve deployment, one that runs or one that is to."""

    name: str
    replicas: int
    """The most of them, where they come and go."""
    version: str | None = None
    """None: every deployment replaces its replicas."""
    options: str = ""
    """What its replicas book, and where. Another makes other replicas."""
    nodes: tuple[str, ...] = ()
    """On which replicas run now."""
    status: str = ""


class Observed(msgspec.Struct, frozen=True):
    """A cluster at one moment."""

    nodes: tuple[Node, ...]
    deployed: tuple[Deployed, ...]


def topology(pools: Sequence[NodePoolSpec]) -> Topology | None:
    """The cluster that this process is connected to; None where it is to none."""
    return with_pools(nodes(), pools, SOURCE) if ray.is_initialized() else None


def nodes() -> tuple[Node, ...]:
    """The nodes that are alive, in the order of their ids."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return tuple(_node(node) for node in sorted(alive, key=lambda node: str(node["NodeID"])))


def deployed() -> tuple[Deployed, ...]:
    """The deployments of Serve, by name; none where Serve does not run."""
    client = serve_context._get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return ()
    # Serve has no public way to the versions of what runs.
    told = ray.get(client._controller.list_deployments_internal.remote(), timeout=_ANSWER_S)
    details = client.get_serve_details()["applications"]
    found = []
    for about, (info, _) in told.items():
        shown = details.get(about.app_name, {}).get("deployments", {}).get(about.name, {})
        found.append(
            Deployed(
                name=about.name,
                replicas=_most(info.deployment_config),
                version=info.version,
                options=options_of(info.replica_config),
                nodes=_nodes_of(shown.get("replicas", ())),
                status=str(getattr(shown.get("status"), "value", shown.get("status", ""))),
            )
        )
    return tuple(sorted(found, key=lambda each: each.name))


def to_be_deployed(deployment: Any) -> Deployed:
    """A `serve.Deployment` as what it will be."""
    config = deployment._replica_config
    most = _most(deployment._deployment_config)
    return Deployed(deployment.name, most, deployment.version, options_of(config))


def _most(config: Any) -> int:
    """Replicas by Serve's `DeploymentConfig`."""
    scaled = config.autoscaling_config
    return int(config.num_replicas if scaled is None else scaled.max_replicas)


def options_of(config: Any) -> str:
    """What replicas book and where, of Serve's `ReplicaConfig`, in one form."""
    booked: Mapping[str, Any] = {
        "actor": {key: value for key, value in config.ray_actor_options.items() if value},
        "bundles": config.placement_group_bundles,
        "strategy": config.placement_group_strategy,
        "labels": config.placement_group_bundle_label_selector,
        "per_node": config.max_replicas_per_node or None,
    }
    return json.dumps(booked, sort_keys=True, default=str)


def _nodes_of(replicas: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Of those replicas that have a node already."""
    return tuple(sorted(str(each["node_id"])[:8] for each in replicas if each.get("node_id")))


def _node(told: Mapping[str, Any]) -> Node:
    resources = {
        name: float(amount)
        for name, amount in told["Resources"].items()
        if name not in _NOT_PLANNED and not (name.startswith("node:") and "__internal" not in name)
    }
    labels = {str(key): str(value) for key, value in told["Labels"].items()}
    return Node(f"{told['NodeManagerAddress']}/{str(told['NodeID'])[:8]}", resources, labels)
