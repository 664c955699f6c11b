from __future__ import annotations

from typing import Any

import pytest

from cluster.config import FakeSpec, OnnxSpec, VllmSpec
from cluster.node_pools import NodePoolSpec, PlacedSpec
from cluster.services import in_placement_group, model_service, pools_of
from cluster.sizing import ENGINE_GIB, GIB, ModelSize, cpu_bytes

POOLS = [
    NodePoolSpec.model_validate({"name": "small", "cpus": 4}),
    NodePoolSpec.model_validate({"name": "gpu", "cpus": 8, "accelerator": {"type": "L4"}}),
    NodePoolSpec.model_validate({"name": "large", "cpus": 16}),
]


def vllm(**fields: Any) -> VllmSpec:
    return VllmSpec(**({"name": "v", "engine": "vllm", "source": "x/y"} | fields))


@pytest.mark.parametrize(
    ("placed", "pools"),
    [
        (PlacedSpec(node_pool="gpu"), ("gpu",)),
        (PlacedSpec(), ("small", "large")),
        (vllm(), ("small", "large")),
        (vllm(accelerator_type="L4"), ()),
        (vllm(accelerator_type="L4", node_pool="gpu"), ("gpu",)),
    ],
)
def test_what_needs_no_accelerator_keeps_off_pools_that_have_some(
    placed: PlacedSpec, pools: tuple[str, ...]
) -> None:
    assert pools_of(placed, POOLS) == pools
    assert pools_of(PlacedSpec(), [POOLS[1]]) == (), "where there are no others it may go anywhere"


def test_a_model_on_accelerators_has_a_group_for_each_stage_of_its_pipeline() -> None:
    spec = vllm(
        accelerator_type="L4",
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        num_cpus=3,
        replicas=4,
        spread="require",
        max_context=4096,
        gpu_memory_utilization=0.8,
    )
    size = ModelSize(GIB)
    service = model_service(spec, POOLS, size)
    assert service.groups == ({"GPU": 2.0, "CPU": 3.0}, {"GPU": 2.0})
    assert (service.name, service.field, service.replicas) == ("model-v", "models.v", 4)
    assert (service.spread, service.held_apart) == ("require", False)
    wanted = service.accelerated
    assert wanted is not None
    assert (wanted.type, wanted.tensor, wanted.pipeline, wanted.size) == ("L4", 2, 2, size)
    assert (wanted.context, wanted.memory_share) == (4096, 0.8)


def test_a_model_on_a_part_of_a_gpu_books_that_part_and_its_memory() -> None:
    service = model_service(vllm(accelerator_type="L4", num_gpus=0.25), POOLS, ModelSize(4 * GIB))
    assert service.groups == ({"GPU": 0.25, "CPU": 1.0},)
    assert service.accelerated is not None
    assert service.accelerated.memory_share == 0.225
    assert service.accelerated.gib == pytest.approx((4 + ENGINE_GIB) / 0.225)
    stand_in = FakeSpec(name="f", engine="fake", accelerator_type="L4", num_gpus=0.5)
    assert model_service(stand_in, POOLS, None).groups == ({"GPU": 0.5, "CPU": 0.1},)


def test_a_model_on_cpu_needs_its_memory_where_it_is_known() -> None:
    spec, size = vllm(num_cpus=2), ModelSize(GIB)
    assert model_service(spec, [], None).groups == ({"CPU": 2.0},)
    assert model_service(spec, [], size).groups == ({"CPU": 2.0, "memory": cpu_bytes(spec, size)},)


def test_ray_can_keep_apart_what_is_in_no_placement_group() -> None:
    onnx = OnnxSpec(name="e", engine="onnx", source="bundled/minilm")
    assert model_service(onnx, [], None).held_apart
    assert not in_placement_group(FakeSpec(name="f", engine="fake"))
    assert in_placement_group(FakeSpec(name="f", engine="fake", accelerator_type="L4"))
    assert in_placement_group(vllm())
