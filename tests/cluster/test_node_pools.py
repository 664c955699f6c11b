from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.node_pools import NodePoolSpec


def pool(**fields: Any) -> NodePoolSpec:
    return NodePoolSpec.model_validate({"name": "gpu", "cpus": 8} | fields)


def test_what_ray_knows_of_a_node_with_accelerators() -> None:
    spec = pool(accelerator={"type": "L4", "count": 2}, labels={"zone": "a"}, memory_gib=2)
    assert spec.node_labels() == {"pool": "gpu", "zone": "a", "ray.io/accelerator-type": "L4"}
    assert spec.node_resources() == {"CPU": 8, "memory": 2 * 2**30, "GPU": 2, "accelerator_type:L4": 1}


def test_what_ray_knows_of_a_node_without() -> None:
    assert pool().node_labels() == {"pool": "gpu"}
    assert pool().node_resources() == {"CPU": 8}


def test_a_pool_is_of_a_number_of_nodes_or_of_a_range() -> None:
    assert (pool().min_nodes, pool().max_nodes) == (1, 1)
    assert (pool(nodes=3).min_nodes, pool(nodes=3).max_nodes) == (3, 3)
    assert (pool(nodes={"max": 4}).min_nodes, pool(nodes={"max": 4}).max_nodes) == (0, 4)


def test_the_memory_of_an_accelerator_is_known_or_said() -> None:
    def gib(**fields: Any) -> float | None:
        accelerator = pool(accelerator=fields).accelerator
        assert accelerator is not None
        return accelerator.gib

    assert gib(type="H100") == 80
    assert gib(type="A100", memory_gib=80) == 80
    assert gib(type="X9") is None


def test_prices_are_exact() -> None:
    assert pool(price_per_hour=0.41).price_per_hour == Decimal("0.41")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nodes": {"min": 3, "max": 2}}, r"min \(3\) must be at most max \(2\)"),
        ({"labels": {"pool": "x"}}, "'pool' is set by itself"),
        ({"labels": {"ray.io/region": "x"}}, "'ray.io/region' is set by itself"),
        ({"labels": {"zone": "in(a)"}}, "zone"),
        ({"name": "-gpu"}, "name"),
        ({"head": True, "nodes": 2}, "set `nodes: 1`"),
        ({"accelerator": {"type": "L4", "count": 0}}, "count"),
        ({"gpus": 2}, "there is no such field"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        pool(**fields)
