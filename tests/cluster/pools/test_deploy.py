from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import FakeSpec, OnnxSpec, OpenAISpec, VllmSpec
from cluster.engines.fake import FakeTokenCounter
from cluster.engines.replicas import FakeReplica, OnnxReplica, VllmReplica
from cluster.errors import ConfigError
from cluster.interface import ModelInfo
from cluster.models import prepare
from cluster.pools.deploy import bind, model_info, model_version, placement_bundles, token_counter
from cluster.tokens import ByteTokenCounter, ModelTokenCounter

FAKE = FakeSpec(name="f", engine="fake", replicas=2, max_queued_requests=5)
ONNX = OnnxSpec(name="e", engine="onnx", source="bundled/minilm", num_cpus=0.25)


def vllm(**fields: Any) -> VllmSpec:
    return VllmSpec(**({"name": "v", "engine": "vllm", "source": "bundled/smollm2"} | fields))


def openai(**fields: Any) -> OpenAISpec:
    return OpenAISpec(**({"name": "o", "engine": "openai", "base_url": "http://localhost/v1"} | fields))


def test_a_cpu_replica_is_one_bundle_of_its_cpus() -> None:
    assert placement_bundles(vllm(num_cpus=4)) == [{"CPU": 4.0}]


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (2, 3)])
def test_a_gpu_replica_has_a_gpu_for_each_worker(tensor: int, pipeline: int) -> None:
    spec = vllm(
        accelerator_type="H100", tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, num_cpus=2
    )
    first, *others = placement_bundles(spec)
    worker = {"GPU": 1.0, "accelerator_type:H100": 0.001}
    assert first == worker | {"CPU": 2.0}
    assert others == [worker] * (tensor * pipeline - 1)


@pytest.mark.parametrize(
    ("spec", "replica", "cpus"),
    [(FAKE, FakeReplica, 0.1), (ONNX, OnnxReplica, 0.25), (vllm(), VllmReplica, 0)],
)
def test_each_spec_has_its_deployment(
    tmp_path: Path, spec: FakeSpec | OnnxSpec | VllmSpec, replica: type, cpus: float
) -> None:
    deployment = bind(spec, tmp_path)._bound_deployment
    assert deployment.name == f"model-{spec.name}"
    assert deployment.func_or_class is replica
    assert deployment.num_replicas == spec.replicas
    assert deployment.max_ongoing_requests == spec.max_ongoing_requests
    assert deployment.max_queued_requests == spec.max_queued_requests
    assert deployment.ray_actor_options["num_cpus"] == cpus


def test_a_vllm_deployment_books_its_bundles(tmp_path: Path) -> None:
    spec = vllm(accelerator_type="L4", tensor_parallel_size=2)
    config = bind(spec, tmp_path)._bound_deployment._replica_config
    assert config.placement_group_bundles == placement_bundles(spec)


def test_a_replica_that_is_replaced_ends_its_calls(tmp_path: Path) -> None:
    config = bind(FAKE, tmp_path, drain_s=77)._bound_deployment._deployment_config
    assert config.graceful_shutdown_timeout_s == 77


def test_only_a_spec_that_has_changed_is_deployed_again(tmp_path: Path) -> None:
    """Serve replaces all replicas of a deployment whose version is another."""

    def deployed(spec: FakeSpec | OnnxSpec | VllmSpec) -> str | None:
        return bind(spec, tmp_path)._bound_deployment.version

    assert deployed(vllm()) == deployed(vllm()) is not None
    changed = [FAKE, ONNX, vllm(), vllm(max_num_seqs=8), FAKE.model_copy(update={"script": {"token_s": 1}})]
    assert len({deployed(spec) for spec in changed}) == len(changed)


def test_what_a_caller_must_know_of_a_model() -> None:
    spec = vllm(max_context=4096, default_max_tokens=99)
    expected = ModelInfo("v", "generate", 4096, 99, version=model_version(spec), keeps_prefixes=True)
    assert model_info(spec) == expected
    assert model_info(ONNX) == ModelInfo("e", "embed", 512, 256, version=model_version(ONNX))
    assert model_info(openai(task="embed")).task == "embed"


def test_a_model_is_another_version_where_its_answers_may_differ() -> None:
    assert model_version(vllm()) == model_version(vllm(replicas=2, num_cpus=3, max_num_seqs=64))
    assert model_version(vllm()) != model_version(vllm(dtype="float16"))
    assert model_version(vllm()) != model_version(vllm(source="another"))


def test_each_spec_has_its_counter(tmp_path: Path) -> None:
    folder = prepare("bundled/minilm", tmp_path)
    assert isinstance(token_counter(FAKE, tmp_path), FakeTokenCounter)
    assert isinstance(token_counter(ONNX, tmp_path), ModelTokenCounter)
    assert isinstance(token_counter(vllm(source="Qwen/Qwen3-8B"), tmp_path), ByteTokenCounter)
    assert isinstance(token_counter(openai(), tmp_path), ByteTokenCounter)
    assert isinstance(token_counter(openai(tokenizer=str(folder)), tmp_path), ModelTokenCounter)


def test_a_model_that_is_not_prepared_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not prepared"):
        token_counter(vllm(), tmp_path)
