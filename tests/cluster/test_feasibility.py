"""Every reason by name, and what would help."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.feasibility import crowded_out, refusals
from cluster.placement import Accelerated, Service, place
from cluster.sizing import GIB, ModelSize
from cluster.topology import Node, Topology


def gpu(name: str, count: int = 2, kind: str = "A100-80G", gib: float | None = 80) -> Node:
    resources = {"CPU": 8.0, "GPU": float(count), f"accelerator_type:{kind}": 1.0}
    return Node(name, resources, {"pool": name.split("-")[0]}, accelerator_gib=gib)


def cpu(name: str, cpus: float = 8) -> Node:
    return Node(name, {"CPU": cpus}, {"pool": name.split("-")[0]})


def model(tensor: int = 1, pipeline: int = 1, replicas: int = 1, **fields: Any) -> Service:
    groups = tuple({"GPU": float(tensor)} | ({} if index else {"CPU": 1.0}) for index in range(pipeline))
    service = {"pools": fields.pop("pools", ("a100",)), "spread": fields.pop("spread", "prefer")}
    wanted = Accelerated(**({"type": "A100-80G", "tensor": tensor, "pipeline": pipeline} | fields))
    return Service(
        "model-llama", "models.llama", replicas, groups, held_apart=False, accelerated=wanted, **service
    )


LLAMA_70B = ModelSize(140 * GIB, heads=64, layers=80, kv_bytes_per_token=320 * 1024, kv_heads=8)
TWO_OF_TWO = [gpu("a100-1"), gpu("a100-2")]


def reason(service: Service, nodes: list[Node], *others: Service, **fields: Any) -> str | None:
    topology = Topology(tuple(nodes), "the cluster", **fields)
    services = [service, *others]
    found = refusals(services, place(services, topology))
    return next((refusal.reason for refusal in found if refusal.service == service.name), None)


def test_what_fits_is_not_refused() -> None:
    assert reason(model(2, 2, size=LLAMA_70B, context=8192), TWO_OF_TWO) is None


def test_tensor_parallelism_that_no_node_holds_is_refused_with_one_that_fits() -> None:
    said = (
        "it needs 4 GPUs (A100-80G) on one node for tensor_parallel_size 4; the largest node of pool a100 "
        "has 2; take tensor_parallel_size 2 with pipeline_parallel_size 2"
    )
    assert reason(model(4, size=LLAMA_70B, context=8192), TWO_OF_TWO) == said
    assert reason(model(4), TWO_OF_TWO) == said, "of unknown size: as many as were asked for"


def test_memory_that_is_too_small_is_named_with_a_division_that_fits() -> None:
    size = ModelSize(60 * GIB, heads=64, layers=80, kv_bytes_per_token=GIB / 1024)
    said = reason(model(1, size=size, context=16384), [gpu("a100-1", count=4)])
    assert said == (
        "it needs 77.0 GiB on its GPU for its weights and one call of 16384 tokens; the engine may use "
        "0.9 of 80 GiB of each A100-80G; take tensor_parallel_size 2"
    )


@pytest.mark.parametrize(
    ("service", "nodes", "said"),
    [
        (model(pools=("h100",)), TWO_OF_TWO, "the cluster has no node of pool h100; its pools: a100"),
        (
            model(type="H100"),
            TWO_OF_TWO,
            "it needs accelerators of type H100; pool a100 has A100-80G; accelerators of type A100-80G could "
            "take it",
        ),
        (model(), [cpu("a100-1")], "it needs accelerators of type A100-80G; pool a100 has none"),
        (
            model(3, size=LLAMA_70B),
            TWO_OF_TWO,
            "tensor_parallel_size 3 does not divide its 64 attention heads; take tensor_parallel_size 2",
        ),
        (
            model(1, 3, size=ModelSize(GIB, layers=2)),
            TWO_OF_TWO,
            "pipeline_parallel_size 3 is more than its 2 layers; take tensor_parallel_size 1",
        ),
        (
            model(2, replicas=3, spread="require"),
            TWO_OF_TWO,
            "spread: require asks for a node for each of 3 replicas; 2 could take one: take fewer replicas, "
            "or spread: prefer",
        ),
        (
            model(1, replicas=2, spread="require"),
            TWO_OF_TWO,
            "spread: require cannot be held to: two replicas fit on node a100-1, and Ray keeps no placement "
            "groups apart; book more than half of its CPUs with num_cpus, or take spread: prefer",
        ),
        (
            Service("g", "gateway", 1, ({"CPU": 12.0},)),
            [cpu("a-1"), cpu("a-2")],
            "it needs 12 CPUs on one node; the largest node that it may run on has 8 CPUs",
        ),
        (
            Service("g", "gateway", 1, ({"CPU": 1.0, "memory": 8 * GIB},)),
            [Node("a-1", {"CPU": 4.0, "memory": 6 * GIB})],
            "it needs 8.0 GiB of memory on one node; the largest node that it may run on has 6.0 GiB of "
            "memory",
        ),
        (
            Service("g", "gateway", 1, ({"CPU": 4.0, "disk": 1.0},)),
            [Node("a-1", {"CPU": 4.0}), Node("a-2", {"CPU": 1.0, "disk": 1.0})],
            "no node that it may run on has 4 CPUs and 1 disk at once",
        ),
    ],
)
def test_what_is_impossible_by_itself(service: Service, nodes: list[Node], said: str) -> None:
    assert reason(service, nodes) == said


def part(gpus: float, replicas: int = 1, share: float | None = None, **fields: Any) -> Service:
    whole = model(1, replicas=replicas, memory_share=share or 0.9 * gpus, **fields)
    return msgspec.structs.replace(whole, name="model-part", groups=({"GPU": gpus, "CPU": 1.0},))


SMALL = ModelSize(7 * GIB, heads=16, layers=32)
NEEDS = "it needs 8.0 GiB on its GPU for its weights and one call of 0 tokens; the engine may use "


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (part(0.1, size=SMALL), NEEDS + "0.09 of 80 GiB of each A100-80G; take num_gpus 0.12"),
        (
            part(0.5, share=0.05, size=SMALL),
            NEEDS + "0.05 of 80 GiB of each A100-80G; take num_gpus 0.5 without gpu_memory_utilization",
        ),
        (
            part(0.5, size=LLAMA_70B),
            "it needs 141.0 GiB on its GPU for its weights and one call of 0 tokens; the engine may use 0.45 "
            "of 80 GiB of each A100-80G; leave num_gpus out and take tensor_parallel_size 2",
        ),
        (
            part(0.5, type="H100"),
            "it needs accelerators of type H100; pool a100 has A100-80G; accelerators of type A100-80G could "
            "take it",
        ),
        (
            part(0.6, replicas=5),
            "no room for 1 of 5 replicas of 0.6 GPUs and 1 CPUs: 2 nodes of pool a100 could take one; of no "
            "GPU there is more than 0.4 left",
        ),
    ],
)
def test_what_a_part_of_a_gpu_is_too_small_for(service: Service, said: str) -> None:
    assert reason(service, TWO_OF_TWO) == said


def test_what_is_suggested_for_a_part_of_a_gpu_fits() -> None:
    assert reason(part(0.11, size=SMALL), TWO_OF_TWO) is not None
    assert reason(part(0.12, size=SMALL), TWO_OF_TWO) is None
    assert reason(part(0.5, size=SMALL), TWO_OF_TWO) is None
    assert reason(model(2, size=LLAMA_70B), TWO_OF_TWO) is None


@pytest.mark.parametrize(
    ("services", "nodes", "crowded"),
    [
        ([part(0.5), part(0.5), model()], [gpu("a100-1", 1), gpu("a100-2", 1)], True),
        ([part(0.5), part(0.5), model()], [gpu("a100-1", 1), gpu("a100-2", 1), gpu("a100-3", 1)], False),
        ([part(0.5), part(0.5), model()], [gpu("a100-1", 2)], False),
        ([part(0.5, replicas=2), model(2)], TWO_OF_TWO, True),
        ([part(0.5), model(2)], TWO_OF_TWO, False),
        ([part(0.5, replicas=4)], [gpu("a100-1", 1), gpu("a100-2", 1)], False),
        (
            [part(0.5, replicas=2), model(pools=("b100",))],
            [gpu("a100-1", 1), gpu("a100-2", 1), gpu("b100-1")],
            False,
        ),
    ],
)
def test_whole_gpus_may_be_lacking_where_ray_spreads_the_parts(
    services: list[Service], nodes: list[Node], crowded: bool
) -> None:
    topology = Topology(tuple(nodes), "the cluster")
    assert not place(services, topology).unplaced
    assert crowded_out(services, topology) == (("model-llama",) if crowded else ())


def test_what_finds_no_room_beside_the_others() -> None:
    other = Service("embed", "models.embed", 2, ({"CPU": 5.0},))
    assert reason(Service("g", "gateway", 2, ({"CPU": 4.0},)), [cpu("a-1"), cpu("a-2")], other) == (
        "no room for 2 of 2 replicas of 4 CPUs: 2 nodes of the cluster could take one; there too: 2 of embed"
    )


def test_the_most_nodes_that_may_run_are_named() -> None:
    said = reason(
        Service("g", "gateway", 3, ({"CPU": 8.0},)), [cpu("a-1"), cpu("a-2"), cpu("a-3")], most_nodes=2
    )
    assert said is None, "they run already"
    nodes = [cpu("a-1"), *(Node(f"a-{index}", {"CPU": 8.0}, running=False) for index in (2, 3))]
    said = reason(Service("g", "gateway", 3, ({"CPU": 8.0},)), nodes, most_nodes=2)
    assert said is not None
    assert said.endswith("could take one, and at most 2 nodes run at once")
