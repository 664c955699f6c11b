"""Packing: literal clusters, and properties that hold of every one."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.placement import Accelerated, Placed, Placement, Service, candidates, place
from cluster.sizing import GIB, ModelSize
from cluster.topology import Node, Topology


def node(name: str, cpus: float = 8, gpus: float = 0, **fields: Any) -> Node:
    accelerators = {"GPU": gpus, "accelerator_type:L4": 1.0} if gpus else {}
    return Node(name, {"CPU": cpus} | accelerators, {"pool": name.split("-")[0]}, **fields)


def cluster(*nodes: Node, most: int | None = None) -> Topology:
    return Topology(nodes, "the test", most_nodes=most)


def plain(name: str, cpus: float = 1, replicas: int = 1, **fields: Any) -> Service:
    return Service(name, name, replicas, ({"CPU": cpus},), **fields)


def model(name: str, tensor: int = 1, pipeline: int = 1, replicas: int = 1, **fields: Any) -> Service:
    groups = tuple({"GPU": float(tensor)} | ({} if index else {"CPU": 1.0}) for index in range(pipeline))
    accelerated = Accelerated("L4", tensor, pipeline, **fields)
    return Service(name, name, replicas, groups, held_apart=False, accelerated=accelerated)


def nodes_of(placement: Placement, service: str) -> list[tuple[str, ...]]:
    return [placed.nodes for placed in placement.placed if placed.service == service]


def test_tensor_parallel_stays_on_a_node_and_pipeline_parallel_goes_across() -> None:
    topology = cluster(node("gpu-1", gpus=2), node("gpu-2", gpus=2), node("gpu-3", gpus=4))
    assert nodes_of(place([model("m", tensor=4)], topology), "m") == [("gpu-3",)]
    assert nodes_of(place([model("m", 2, 3)], topology), "m") == [("gpu-1", "gpu-2", "gpu-3")]
    assert nodes_of(place([model("m", 2, 2)], topology), "m") == [("gpu-3", "gpu-3")], (
        "one node if one holds it"
    )


def test_copies_go_to_different_nodes_while_there_are_such() -> None:
    topology = cluster(node("a-1"), node("a-2"))
    assert nodes_of(place([plain("g", replicas=3)], topology), "g") == [("a-1",), ("a-2",), ("a-1",)]


def test_a_node_is_started_for_room_but_not_to_keep_copies_apart_unless_that_is_required() -> None:
    topology = cluster(node("a-1"), node("a-2", running=False))
    assert place([plain("g", replicas=2)], topology).used() == {"a-1"}
    assert place([plain("g", replicas=2, spread="require")], topology).used() == {"a-1", "a-2"}
    assert place([plain("g", cpus=6, replicas=2)], topology).used() == {"a-1", "a-2"}


def test_what_needs_no_accelerator_keeps_off_nodes_that_have_some() -> None:
    topology = cluster(node("gpu-1", gpus=1), node("cpu-1", running=False))
    placement = place([plain("g", replicas=2)], topology)
    assert nodes_of(placement, "g") == [("cpu-1",), ("cpu-1",)]
    assert place([plain("g")], cluster(node("gpu-1", gpus=1))).unplaced == {}, "but for want of others"


def test_what_feeds_each_other_goes_to_one_node() -> None:
    topology = cluster(node("a-1"), node("a-2"), node("a-3"))
    services = [plain("w", cpus=7), plain("embed"), plain("zllm", cpus=3)]
    near = place(services, topology, [("embed", "zllm")])
    assert nodes_of(near, "embed") == nodes_of(near, "zllm")
    assert near.together([("embed", "zllm"), ("embed", "w")]) == (("embed", "zllm"),)


def test_a_service_keeps_to_its_pools() -> None:
    topology = cluster(node("a-1", cpus=64), node("b-1"))
    assert nodes_of(place([plain("g", pools=("b",))], topology), "g") == [("b-1",)]
    assert place([plain("g", cpus=9, pools=("b",))], topology).unplaced == {"g": 1}


def test_the_head_is_asked_for_by_name() -> None:
    head = Node("head", {"node:__internal_head__": 1.0})
    service = Service("store", "store", 1, ({"node:__internal_head__": 0.001},))
    assert nodes_of(place([service], cluster(node("a-1"), head)), "store") == [("head",)]


def test_what_found_no_room_is_tried_first_the_next_time() -> None:
    """Largest first puts `big` on the only node of the pool that `tied` may use."""
    topology = cluster(node("a-1", cpus=5), node("b-1", cpus=5))
    services = [plain("big", cpus=4, pools=("a", "b")), plain("tied", cpus=3, pools=("a",))]
    placement = place(services, topology)
    assert placement.unplaced == {}
    assert nodes_of(placement, "big") == [("b-1",)]


def test_no_more_nodes_are_started_than_may_run() -> None:
    topology = cluster(node("a-1"), node("a-2", running=False), node("a-3", running=False), most=2)
    assert place([plain("g", cpus=8, replicas=3)], topology).unplaced == {"g": 1}


def test_accelerators_must_have_the_memory() -> None:
    size = ModelSize(40 * GIB)
    topology = cluster(node("s-1", gpus=2, accelerator_gib=24), node("l-1", gpus=2, accelerator_gib=80))
    assert [each.name for each in candidates(model("m", size=size), topology)] == ["l-1"]
    assert len(candidates(model("m", 2, size=size, memory_share=1.0), topology)) == 2
    assert len(candidates(model("m"), topology)) == 2, "of a model of unknown size all are taken to do"


def parts(name: str, gpus: float, replicas: int = 1, pools: tuple[str, ...] = (), **fields: Any) -> Service:
    wanted = Accelerated("L4", **fields)
    return Service(
        name, name, replicas, ({"GPU": gpus, "CPU": 0.1},), pools, held_apart=False, accelerated=wanted
    )


def test_parts_share_a_gpu_and_leave_whole_ones_to_others() -> None:
    topology = cluster(node("gpu-1", gpus=2), node("gpu-2", gpus=1))
    services = [parts("embed", 0.25), parts("rerank", 0.25), parts("small", 0.5), model("m", 2)]
    placement = place(services, topology)
    assert nodes_of(placement, "m") == [("gpu-1",)]
    assert {nodes_of(placement, name)[0] for name in ("embed", "rerank", "small")} == {("gpu-2",)}
    assert placement.gpus == {"gpu-1": (0, 0), "gpu-2": (0,)}


def test_a_shared_gpu_is_taken_before_a_whole_one_is_broken() -> None:
    """The other node has less left over in all."""
    topology = cluster(node("large-1", gpus=3), node("small-1", gpus=1))
    placement = place([parts("a", 0.5, pools=("large",)), parts("b", 0.4)], topology)
    assert nodes_of(placement, "b") == [("large-1",)]
    assert placement.gpus == {"large-1": (0.1, 1, 1), "small-1": (1,)}


def test_no_replica_is_on_two_gpus() -> None:
    topology = cluster(node("gpu-1", gpus=2))
    placement = place([parts("m", 0.6, replicas=3)], topology)
    assert placement.unplaced == {"m": 1}, "1.8 of 2, but the third would be on two"
    assert placement.gpus["gpu-1"] == (0.4, 0.4)
    assert place([parts("m", 0.3333, replicas=6)], topology).unplaced == {}
    assert place([parts("m", 0.1, replicas=20)], topology).unplaced == {}


def test_a_whole_gpu_is_none_that_others_have_a_part_of() -> None:
    topology = cluster(node("gpu-1", gpus=2))
    assert place([parts("a", 0.1), model("m", 2)], topology).unplaced == {"a": 1}
    assert place([parts("a", 0.1), model("m"), parts("b", 0.9)], topology).unplaced == {}


def test_what_was_tried_of_a_replica_is_taken_back() -> None:
    """The second stage finds no place, so that the GPUs of the first are there for others."""
    topology = cluster(node("gpu-1", gpus=2), node("gpu-2", gpus=1))
    placement = place([model("long", 2, 2), parts("small", 0.5, replicas=6)], topology)
    assert placement.unplaced == {"long": 1}
    assert placement.free["gpu-1"]["GPU"] == placement.free["gpu-2"]["GPU"] == 0


def test_partners_on_parts_of_gpus_share_a_node() -> None:
    topology = cluster(node("gpu-1", gpus=1), node("gpu-2", gpus=1), node("gpu-3", gpus=1))
    near = [("model-embed", "model-zllm")]
    services = [parts("model-big", 0.75), parts("model-embed", 0.25), parts("model-zllm", 0.5)]
    placement = place(services, topology, near)
    assert placement.together(near) == (("model-embed", "model-zllm"),)
    (on,) = nodes_of(placement, "model-embed")
    assert placement.gpus[on[0]] == (0.25,), "and there is but one GPU on it"


def test_memory_is_looked_at_in_the_part() -> None:
    topology = cluster(node("gpu-1", gpus=1, accelerator_gib=24))
    size = ModelSize(4 * GIB)
    assert candidates(parts("m", 0.25, size=size, memory_share=0.225), topology) == [topology.nodes[0]]
    assert candidates(parts("m", 0.2, size=size, memory_share=0.18), topology) == []


def test_what_it_costs_an_hour() -> None:
    price = Decimal("0.5")
    topology = cluster(
        node("a-1", price_per_hour=price), node("a-2", running=False, price_per_hour=price), node("b-1")
    )
    assert place([], topology).per_hour() == price
    assert place([plain("g", cpus=8, replicas=3)], topology).per_hour() == 2 * price


NODES = st.lists(
    st.builds(
        lambda kind, cpus, gpus, running: (kind, float(cpus), float(gpus if kind == "gpu" else 0), running),
        st.sampled_from(["cpu", "gpu"]),
        st.integers(0, 8),
        st.integers(1, 4),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
SERVICES = st.lists(
    st.one_of(
        st.builds(
            lambda cpus, replicas, spread, pools: plain(
                "", cpus / 4, replicas, spread=spread, pools=tuple(pools)
            ),
            st.integers(0, 16),
            st.integers(1, 5),
            st.sampled_from(["prefer", "require"]),
            st.lists(st.sampled_from(["cpu", "gpu"]), max_size=1),
        ),
        st.builds(model, st.just(""), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
        st.builds(
            lambda hundredths, replicas: parts("", hundredths / 100, replicas),
            st.integers(1, 100),
            st.integers(1, 12),
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(NODES, SERVICES, st.booleans())
def test_whatever_is_asked_no_node_is_overcommitted_and_nothing_is_forgotten(
    kinds: list[tuple[str, float, float, bool]], drawn: list[Service], near: bool
) -> None:
    nodes = [
        node(f"{kind}-{index}", cpus, gpus, running=running)
        for index, (kind, cpus, gpus, running) in enumerate(kinds)
    ]
    services = [
        Service(f"s{i}", each.field, each.replicas, each.groups, each.pools, each.spread, each.held_apart,
                each.accelerated)
        for i, each in enumerate(drawn)
    ]  # fmt: skip
    topology = cluster(*nodes)
    pairs = [("s0", "s1")] if near else []
    placement = place(services, topology, pairs)
    by_name = {service.name: service for service in services}
    counts = Counter(placed.service for placed in placement.placed)
    for service in services:
        assert counts[service.name] + placement.unplaced.get(service.name, 0) == service.replicas
    booked: dict[str, Counter[str]] = defaultdict(Counter)
    for placed in placement.placed:
        _booked(booked, by_name[placed.service], placed)
    for each in nodes:
        for resource, amount in booked[each.name].items():
            assert amount <= each.resources.get(resource, 0.0) + 1e-6
            left = each.resources.get(resource, 0.0) - amount
            assert abs(placement.free[each.name].get(resource, 0.0) - left) < 1e-6
        gpus = placement.gpus[each.name]
        assert all(0 <= free <= 1 for free in gpus)
        assert abs(sum(gpus) - placement.free[each.name].get("GPU", 0.0)) < 1e-6
    for service in services:
        on = Counter(name for nodes_ in nodes_of(placement, service.name) for name in set(nodes_))
        assert service.spread == "prefer" or not on or max(on.values()) == 1
        assert not service.pools or {name.split("-")[0] for name in on} <= set(service.pools)
    assert place(services, topology, pairs) == placement, "the same again"


def _booked(booked: dict[str, Counter[str]], service: Service, placed: Placed) -> None:
    for name, group in zip(placed.nodes, service.groups, strict=True):
        for resource, amount in group.items():
            booked[name][resource] += amount  # type: ignore[assignment]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12))
def test_copies_are_as_far_apart_as_equal_nodes_allow(nodes: int, replicas: int) -> None:
    placement = place([plain("g", 0.5, replicas)], cluster(*(node(f"a-{index}") for index in range(nodes))))
    on = Counter(name for (name,) in nodes_of(placement, "g"))
    assert len(on) == min(nodes, replicas)
    assert max(on.values()) - min(on.values()) <= 1
