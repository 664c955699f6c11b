"""Model specs as Ray Serve deployments, and the tokenizers and facts their callers need."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from cluster.config import FakeSpec, ModelSpec, OnnxSpec, OpenAISpec, ReplicatedSpec, VllmSpec
from cluster.engines.fake import FakeTokenCounter
from cluster.engines.replicas import FakeReplica, OnnxReplica, VllmReplica
from cluster.interface import ModelInfo
from cluster.models import model_folder
from cluster.tokens import TokenCounter, counter_for

DRAIN_S = 600.0
"""How long a replica that is replaced may work on the calls that it has."""
HEALTH_CHECK_PERIOD_S = 5.0
_NOT_OF_ANSWERS = {
    *("name", "default_max_tokens", "replicas", "num_cpus", "cpu_cores", "threads", "max_connections"),
    "price",
    *("max_ongoing_requests", "max_queued_requests", "max_num_seqs", "kv_cache_gib", "api_key_env"),
    *("max_num_batched_tokens", "block_size", "enforce_eager", "gpu_memory_utilization"),
}


def bind(spec: ReplicatedSpec, data_dir: Path, drain_s: float = DRAIN_S) -> Application:
    """The Serve deployment of a model that runs on this cluster.

    A replica that is replaced ends its calls first, for at most `drain_s`. Where the spec is the same in the
    next `serve run` or `serve.run`, no replica is replaced.
    """
    options = _options(spec) | {"graceful_shutdown_timeout_s": drain_s}
    if isinstance(spec, VllmSpec):
        bundles = placement_bundles(spec)
        deployment = serve.deployment(VllmReplica, **options, placement_group_bundles=bundles)
        return _pinned(deployment, spec).bind(spec, data_dir)
    if isinstance(spec, OnnxSpec):
        return _pinned(serve.deployment(OnnxReplica, **options), spec).bind(spec, data_dir)
    if isinstance(spec, FakeSpec):
        return _pinned(serve.deployment(FakeReplica, **options), spec).bind(spec)
    raise TypeError(f"no deployment for {type(spec).__name__}")


def _pinned(deployment: serve.Deployment, spec: ReplicatedSpec) -> serve.Deployment:
    """The deployment under a version made of its spec. Serve gives it a random one otherwise, and an engine
    that takes minutes to load would be loaded again for a change of some graph. Serve has no public name for
    it. A price is no matter of the replica's."""
    said = f"{metadata.version('cluster-graph-hybrid')} {spec.model_dump_json(exclude={'price'})}"
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return deployment.options(version=digest, _internal=True)


def placement_bundles(spec: VllmSpec) -> list[dict[str, float]]:
    """What one replica needs at once: a CPU share, or a GPU for each tensor- and pipeline-parallel worker."""
    if spec.on_cpu:
        return [{"CPU": spec.num_cpus}]
    worker = {"GPU": 1.0, f"accelerator_type:{spec.accelerator_type}": 0.001}
    workers = [dict(worker) for _ in range(spec.tensor_parallel_size * spec.pipeline_parallel_size)]
    workers[0]["CPU"] = spec.num_cpus
    return workers


def model_info(spec: ModelSpec) -> ModelInfo:
    """What callers of the pool must know."""
    return ModelInfo(
        name=spec.name,
        task=spec.task,
        max_context=spec.max_context,
        default_max_tokens=spec.default_max_tokens,
        version=model_version(spec),
        keeps_prefixes=isinstance(spec, VllmSpec) and spec.replicas == 1,
    )


def model_version(spec: ModelSpec) -> str:
    """Digest of all in a spec that answers may depend on: where the model runs and how often does not count.

    It knows a model by its source, so weights that are replaced in their place need another name or path.
    """
    answers = spec.model_dump(mode="json", exclude=_NOT_OF_ANSWERS)
    return hashlib.blake2b(json.dumps(answers, sort_keys=True).encode(), digest_size=8).hexdigest()


def token_counter(spec: ModelSpec, data_dir: Path) -> TokenCounter:
    """Counts the model's tokens in the caller's process."""
    if isinstance(spec, FakeSpec):
        return FakeTokenCounter()
    source = spec.tokenizer if isinstance(spec, OpenAISpec) else spec.source
    return counter_for(model_folder(source, data_dir) if source is not None else None)


def _options(spec: ReplicatedSpec) -> dict[str, Any]:
    in_placement_group = isinstance(spec, VllmSpec)
    return {
        "name": f"model-{spec.name}",
        "num_replicas": spec.replicas,
        "max_ongoing_requests": spec.max_ongoing_requests,
        "max_queued_requests": spec.max_queued_requests,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        # A vLLM replica lives in the first bundle of its group, whose CPUs its engine process uses.
        "ray_actor_options": {"num_cpus": 0 if in_placement_group else spec.num_cpus},
    }
