"""Model specs as Ray Serve deployments, and the tokenizers and facts their callers need."""

from __future__ import annotations

import hashlib
import json
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

GRACEFUL_SHUTDOWN_S = 30.0
HEALTH_CHECK_PERIOD_S = 5.0
_NOT_OF_ANSWERS = {
    *("name", "default_max_tokens", "replicas", "num_cpus", "cpu_cores", "threads", "max_connections"),
    *("max_ongoing_requests", "max_queued_requests", "max_num_seqs", "kv_cache_gib", "api_key_env"),
    *("block_size", "enforce_eager", "gpu_memory_utilization"),
}


def bind(spec: ReplicatedSpec, data_dir: Path) -> Application:
    """The Serve deployment of a model that runs on this cluster."""
    if isinstance(spec, VllmSpec):
        deployment = serve.deployment(
            VllmReplica, **_options(spec), placement_group_bundles=placement_bundles(spec)
        )
        return deployment.bind(spec, data_dir)
    if isinstance(spec, OnnxSpec):
        return serve.deployment(OnnxReplica, **_options(spec)).bind(spec, data_dir)
    if isinstance(spec, FakeSpec):
        return serve.deployment(FakeReplica, **_options(spec)).bind(spec)
    raise TypeError(f"no deployment for {type(spec).__name__}")


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
        "graceful_shutdown_timeout_s": GRACEFUL_SHUTDOWN_S,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        # A vLLM replica lives in the first bundle of its group, whose CPUs its engine process uses.
        "ray_actor_options": {"num_cpus": 0 if in_placement_group else spec.num_cpus},
    }
