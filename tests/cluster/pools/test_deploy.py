from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.autoscaling.config import ReplicaRange
from cluster.config import FakeSpec, LoraSpec, OnnxSpec, OpenAISpec, VllmSpec
from cluster.engines.fake import FakeTokenCounter
from cluster.engines.replicas import FakeReplica, OnnxReplica, VllmReplica
from cluster.errors import ConfigError
from cluster.interface import ModelInfo
from cluster.models import prepare
from cluster.pools.deploy import (
    bind,
    deployment_of,
    model_info,
    model_version,
    placement_bundles,
    token_counter,
)
from cluster.routing.router import PoolRouter
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


def test_a_replica_on_a_part_of_a_gpu_books_that_part() -> None:
    spec = vllm(accelerator_type="L4", num_gpus=0.25)
    assert placement_bundles(spec) == [{"GPU": 0.25, "accelerator_type:L4": 0.001, "CPU": 1.0}]
    config = deployment_of(spec, node_pools=["gpu"])._replica_config
    assert config.placement_group_bundles == placement_bundles(spec)
    assert config.placement_group_bundle_label_selector == [{"pool": "gpu"}]
    assert model_version(spec) == model_version(vllm(accelerator_type="L4")), "its answers are the same"


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


def test_a_range_of_replicas_is_no_other_version(tmp_path: Path) -> None:
    """Engines that take minutes to load go on where only their number changes."""
    made = [
        bind(FakeSpec(name="f", engine="fake", replicas=replicas), tmp_path)._bound_deployment
        for replicas in (1, ReplicaRange(min=0, max=4), ReplicaRange(min=2, max=9))
    ]
    assert len({deployment.version for deployment in made}) == 1
    config = made[1]._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (0, 4)


def test_only_a_vllm_model_without_a_parser_calls_no_tools() -> None:
    bare, parsed = vllm(), vllm(tool_parser="hermes")
    adapter = LoraSpec(name="a", engine="lora", base="v", source="/a")
    specs = [(bare, None), (parsed, None), (FAKE, None), (openai(), None), (adapter, bare), (adapter, parsed)]
    told = [model_info(spec, host).calls_tools for spec, host in specs]
    assert told == [False, True, True, True, False, True]


def test_a_vllm_deployment_books_its_bundles(tmp_path: Path) -> None:
    spec = vllm(accelerator_type="L4", tensor_parallel_size=2)
    config = bind(spec, tmp_path)._bound_deployment._replica_config
    assert config.placement_group_bundles == placement_bundles(spec)


def test_calls_of_every_pool_are_routed_by_what_they_are(tmp_path: Path) -> None:
    for spec in (FAKE, ONNX, vllm(replicas=3)):
        config = bind(spec, tmp_path)._bound_deployment._deployment_config.request_router_config
        assert config.get_request_router_class() is PoolRouter
    assert model_info(vllm(replicas=3)).keeps_prefixes


def test_a_replica_that_is_replaced_ends_its_calls(tmp_path: Path) -> None:
    config = bind(FAKE, tmp_path, drain_s=77)._bound_deployment._deployment_config
    assert config.graceful_shutdown_timeout_s == 77


def test_weights_of_tenants_are_told_to_replicas_that_run(tmp_path: Path) -> None:
    light, heavy = (bind(FAKE, tmp_path, weights={"acme": weight})._bound_deployment for weight in (1.0, 4.0))
    assert heavy._deployment_config.user_config == {"adapters": {}, "weights": {"acme": 4.0}}
    assert light.version == heavy.version, "no replica is replaced for them"


def test_only_a_spec_that_has_changed_is_deployed_again(tmp_path: Path) -> None:
    """Serve replaces all replicas of a deployment whose version is another."""

    def deployed(spec: FakeSpec | OnnxSpec | VllmSpec) -> str | None:
        return bind(spec, tmp_path)._bound_deployment.version

    assert deployed(vllm()) == deployed(vllm()) is not None
    changed = [FAKE, ONNX, vllm(), vllm(max_num_seqs=8), FAKE.model_copy(update={"script": {"token_s": 1}})]
    assert len({deployed(spec) for spec in changed}) == len(changed)


def test_what_a_caller_must_know_of_a_model() -> None:
    spec = vllm(max_context=4096, default_max_tokens=99)
    told = model_info(spec)
    assert (told.name, told.task, told.max_context, told.default_max_tokens) == ("v", "generate", 4096, 99)
    assert (told.version, told.keeps_prefixes, told.base) == (model_version(spec), True, "")
    assert model_info(ONNX) == ModelInfo("e", "embed", 512, 256, version=model_version(ONNX))
    assert model_info(openai(task="embed")).task == "embed"


def test_a_model_is_another_version_where_its_answers_may_differ() -> None:
    assert model_version(vllm()) == model_version(vllm(replicas=2, num_cpus=3, max_num_seqs=64))
    assert model_version(vllm()) != model_version(vllm(dtype="float16"))
    assert model_version(vllm()) != model_version(vllm(source="another"))


def lora(**fields: Any) -> LoraSpec:
    return LoraSpec(**({"name": "a", "engine": "lora", "base": "v", "source": "org/a"} | fields))


def test_adapters_are_told_to_the_replicas_of_their_base_and_replace_none(tmp_path: Path) -> None:
    def deployed(*adapters: LoraSpec) -> Any:
        return bind(vllm(loras={}), tmp_path, adapters=adapters)._bound_deployment

    none, one = deployed(), deployed(lora())
    assert none.user_config == {"adapters": {}, "weights": {}}
    assert one.user_config == {"adapters": {"a": "org/a"}, "weights": {}}
    assert none.version == one.version
    assert bind(vllm(), tmp_path, adapters=[lora()])._bound_deployment.user_config == none.user_config
    assert bind(FAKE, tmp_path, adapters=[lora()])._bound_deployment.user_config == one.user_config


def test_an_adapter_whose_rank_is_too_large_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')
    with pytest.raises(ConfigError, match="rank 64"):
        bind(vllm(loras={"max_rank": 32}), tmp_path, adapters=[lora(source=str(tmp_path))])


def test_an_adapter_is_a_model_of_its_own() -> None:
    base = vllm(loras={}, max_context=4096)
    info = model_info(lora(default_max_tokens=9), base)
    assert (info.name, info.base, info.task, info.default_max_tokens) == ("a", "v", "generate", 9)
    assert info.keeps_prefixes
    assert not model_info(lora(), vllm(loras={}, prefix_caching=False)).keeps_prefixes


def test_an_adapter_is_another_version_with_other_weights_or_another_base() -> None:
    versions = {
        model_version(lora(), vllm()),
        model_version(lora(source="org/b"), vllm()),
        model_version(lora(), vllm(source="another")),
        model_version(vllm()),
    }
    assert len(versions) == 4
    assert model_version(lora(), vllm()) == model_version(lora(price=None), vllm(loras={}, replicas=2))


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


def options(spec: FakeSpec | OnnxSpec | VllmSpec, *pools: str) -> tuple[Any, ...]:
    deployed = deployment_of(spec, 1.0, node_pools=pools)._replica_config
    return (
        deployed.ray_actor_options.get("label_selector"),
        deployed.placement_group_strategy,
        deployed.placement_group_bundle_label_selector,
        deployed.max_replicas_per_node,
    )


def test_a_model_is_held_to_its_node_pools(tmp_path: Path) -> None:
    assert options(ONNX) == (None, None, None, None)
    assert options(ONNX, "cpu") == ({"pool": "cpu"}, None, None, None)
    assert options(ONNX, "a", "b") == ({"pool": "in(a, b)"}, None, None, None)


def test_tensor_parallel_workers_share_a_node_and_stages_need_not() -> None:
    gpu = {"accelerator_type": "L4", "tensor_parallel_size": 2}
    assert options(vllm(**gpu), "gpu") == (None, "STRICT_PACK", [{"pool": "gpu"}] * 2, None)
    across = options(vllm(**gpu, pipeline_parallel_size=2), "gpu")
    assert across == (None, "PACK", [{"pool": "gpu"}] * 4, None)
    stand_in = FakeSpec(name="f", engine="fake", **gpu)
    assert options(stand_in, "gpu")[1:3] == ("STRICT_PACK", [{"pool": "gpu"}] * 2)


def test_replicas_that_are_held_apart() -> None:
    assert options(ONNX.model_copy(update={"spread": "require"}))[3] == 1


def test_how_many_replicas_there_are_is_no_reason_to_load_a_model_again() -> None:
    """But where replicas divide the cores of a machine between them."""

    def version(spec: FakeSpec | VllmSpec, replicas: int) -> str | None:
        return deployment_of(spec.model_copy(update={"replicas": replicas}), 1.0).version

    assert version(FAKE, 1) == version(FAKE, 2)
    assert version(vllm(accelerator_type="L4"), 1) == version(vllm(accelerator_type="L4"), 2)
    assert version(vllm(), 1) != version(vllm(), 2)
