"""Model specs as Ray Serve deployments, and the tokenizers and facts their callers need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from cluster.adapters import check_files, takes_adapters
from cluster.autoscaling.deployment import replica_options
from cluster.config import (
    AcceleratedSpec,
    FakeSpec,
    LoraSpec,
    ModelSpec,
    OnnxSpec,
    RemoteSpec,
    ReplicatedSpec,
    VllmSpec,
)
from cluster.engines.fake import FakeTokenCounter
from cluster.engines.replicas import FakeReplica, OnnxReplica, VllmReplica
from cluster.engines.serving import Told
from cluster.interface import ModelInfo
from cluster.models import model_folder
from cluster.node_pools import PlacedSpec, pool_selector
from cluster.routing import router
from cluster.services import in_placement_group
from cluster.tokens import TokenCounter, counter_for

DRAIN_S = 600.0
"""How long a replica that is replaced may work on the calls that it has."""
HEALTH_CHECK_PERIOD_S = 5.0
QUIET = {"enable_access_log": False}
"""Serve's logging of a deployment: the gateway has a line of its own for every call, and Serve's for each hop
took a twentieth of the CPU of it."""
ROUTING_STATS_PERIOD_S = 5.0
"""How often replicas say of themselves what they have to do. In between their callers know what they have
sent themselves, and with each call how many calls the replica has."""
_NOT_OF_ANSWERS = {
    *("name", "default_max_tokens", "replicas", "num_cpus", "cpu_cores", "threads", "max_connections"),
    *("price", "node_pool", "spread", "parameters"),
    *("max_ongoing_requests", "max_queued_requests", "max_num_seqs", "kv_cache_gib", "api_key_env"),
    "api_key_file",
    *("max_num_batched_tokens", "block_size", "enforce_eager", "gpu_memory_utilization"),
    "num_gpus",
    *("prefix_caching", "loras", "base"),
}


def bind(
    spec: ReplicatedSpec,
    data_dir: Path,
    drain_s: float = DRAIN_S,
    adapters: Sequence[LoraSpec] = (),
    weights: Mapping[str, float] | None = None,
    node_pools: Sequence[str] = (),
) -> Application:
    """The Serve deployment of a model that runs on this cluster, with the adapters on it, on nodes of those
    pools or, without any, on whatever fits. `weights` are those of tenants, by name.

    A replica that is replaced ends its calls first, for at most `drain_s`. Where the spec is the same in the
    next `serve run` or `serve.run`, no replica is replaced; other adapters and weights are told to those that
    run. Raises `ConfigError` for an adapter that cannot be loaded.
    """
    deployment = deployment_of(spec, drain_s, adapters, weights, node_pools)
    return deployment.bind(spec) if isinstance(spec, FakeSpec) else deployment.bind(spec, data_dir)


def deployment_of(
    spec: ReplicatedSpec,
    drain_s: float = DRAIN_S,
    adapters: Sequence[LoraSpec] = (),
    weights: Mapping[str, float] | None = None,
    node_pools: Sequence[str] = (),
) -> serve.Deployment:
    """As `bind`, without what its replicas are given."""
    told: Told = {"weights": dict(weights or {}), "adapters": {}}
    if takes_adapters(spec):
        for adapter in adapters:
            check_files(adapter, spec)
        told["adapters"] = {adapter.name: adapter.source for adapter in adapters}
    options = _options(spec, node_pools) | {"graceful_shutdown_timeout_s": drain_s, "user_config": told}
    replicas: dict[type[ReplicatedSpec], type] = {
        VllmSpec: VllmReplica,
        OnnxSpec: OnnxReplica,
        FakeSpec: FakeReplica,
    }
    return _pinned(serve.deployment(replicas[type(spec)], **options), spec)


def _pinned(deployment: serve.Deployment, spec: ReplicatedSpec) -> serve.Deployment:
    """The deployment under a version made of its spec. Serve gives it a random one otherwise, and an engine
    that takes minutes to load would be loaded again for a change of some graph. Serve has no public name for
    it. A price is no matter of the replica's, nor is how many others there are, where they share no cores."""
    others = {"price", "parameters", "replicas"}
    shares = f" of {spec.most_replicas}" if _shares_cores(spec) else ""
    said = f"{metadata.version('cluster-graph-hybrid')} {spec.model_dump_json(exclude=others)}{shares}"
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return deployment.options(version=digest, _internal=True)


def _shares_cores(spec: ReplicatedSpec) -> bool:
    return isinstance(spec, VllmSpec) and spec.on_cpu and not spec.cpu_cores


def placement_bundles(spec: AcceleratedSpec) -> list[dict[str, float]]:
    """What one replica needs at once: a CPU share, or a GPU for each tensor- and pipeline-parallel worker, of
    which a single one may do with a part."""
    if spec.on_cpu:
        return [{"CPU": spec.num_cpus}]
    worker = {"GPU": spec.worker_gpus, f"accelerator_type:{spec.accelerator_type}": 0.001}
    workers = [dict(worker) for _ in range(spec.tensor_parallel_size * spec.pipeline_parallel_size)]
    workers[0]["CPU"] = spec.num_cpus
    return workers


def model_info(spec: ModelSpec, host: ModelSpec | None = None) -> ModelInfo:
    """What callers of the pool must know. `host` is the base of an adapter."""
    return ModelInfo(
        name=spec.name,
        task=spec.task,
        max_context=spec.max_context,
        default_max_tokens=spec.default_max_tokens,
        version=model_version(spec, host),
        base=spec.base if isinstance(spec, LoraSpec) else "",
        keeps_prefixes=_keeps_prefixes(host or spec),
        calls_tools=_calls_tools(host or spec),
    )


def model_version(spec: ModelSpec, host: ModelSpec | None = None) -> str:
    """Digest of all in a spec that answers may depend on: where the model runs and how often does not count.

    It knows a model by its source, so weights that are replaced in their place need another name or path. An
    adapter has another version where its base has, its `host`.
    """
    answers = [spec.model_dump(mode="json", exclude=_NOT_OF_ANSWERS)]
    if isinstance(spec, LoraSpec) and host is not None:
        answers.append(host.model_dump(mode="json", exclude=_NOT_OF_ANSWERS))
    said = json.dumps(answers, sort_keys=True).encode()
    return hashlib.blake2b(said, digest_size=8).hexdigest()


def _keeps_prefixes(host: ModelSpec) -> bool:
    return isinstance(host, VllmSpec) and host.prefix_caching


def _calls_tools(host: ModelSpec) -> bool:
    return not isinstance(host, VllmSpec) or host.tool_parser is not None


def token_counter(spec: ModelSpec, data_dir: Path) -> TokenCounter:
    """Counts the model's tokens in the caller's process. An adapter has those of its base."""
    if isinstance(spec, LoraSpec):
        raise TypeError("the tokens of an adapter are those of its base")
    if isinstance(spec, FakeSpec):
        return FakeTokenCounter()
    source = spec.tokenizer if isinstance(spec, RemoteSpec) else spec.source
    return counter_for(model_folder(source, data_dir) if source is not None else None)


def placement_options(placed: PlacedSpec, num_cpus: float, node_pools: Sequence[str]) -> dict[str, Any]:
    """Options of a deployment whose replicas need CPUs alone."""
    actor: dict[str, Any] = {"num_cpus": num_cpus}
    if node_pools:
        actor["label_selector"] = pool_selector(node_pools)
    apart = {"max_replicas_per_node": 1} if placed.spread == "require" else {}
    return {"ray_actor_options": actor, **apart}


def _group_options(spec: AcceleratedSpec, node_pools: Sequence[str]) -> dict[str, Any]:
    """Options of a deployment whose replicas have several workers, or a process that books what they need.

    Tensor parallel workers talk at every layer, so they share a node; the stages of a pipeline need not. Ray
    cannot keep groups on different nodes: `spread: require` is checked before.
    """
    bundles = placement_bundles(spec)
    across = spec.pipeline_parallel_size > 1
    selectors = [pool_selector(node_pools) for _ in bundles] if node_pools else None
    return {
        # The replica lives in the first bundle of its group, whose CPUs its engine uses.
        "ray_actor_options": {"num_cpus": 0},
        "placement_group_bundles": bundles,
        "placement_group_strategy": "PACK" if across else "STRICT_PACK",
        **({"placement_group_bundle_label_selector": selectors} if selectors else {}),
    }


def _options(spec: ReplicatedSpec, node_pools: Sequence[str]) -> dict[str, Any]:
    if isinstance(spec, AcceleratedSpec) and in_placement_group(spec):
        where = _group_options(spec, node_pools)
    else:
        where = placement_options(spec, spec.num_cpus, node_pools)
    return {
        "name": f"model-{spec.name}",
        **replica_options(spec),
        "max_ongoing_requests": spec.max_ongoing_requests,
        "max_queued_requests": spec.max_queued_requests,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "logging_config": QUIET,
        "request_router_config": RequestRouterConfig(
            request_router_class=router.PATH, request_routing_stats_period_s=ROUTING_STATS_PERIOD_S
        ),
        **where,
    }
