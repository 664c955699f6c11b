from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import ConfigError
from cluster.node_pools import NodePoolSpec
from cluster.topology import HEAD_RESOURCE, Node, accelerator_type, of_launcher_file, of_pools, with_pools

ROOT = Path(__file__).parents[2]


def pool(name: str, **fields: Any) -> NodePoolSpec:
    return NodePoolSpec.model_validate({"name": name, "cpus": 8} | fields)


CPU = pool("cpu", nodes={"min": 1, "max": 3}, price_per_hour=0.5)
GPU = pool("gpu", nodes=2, accelerator={"type": "A100", "count": 2, "memory_gib": 80}, memory_gib=4)


def test_the_nodes_of_the_pools_of_a_config_and_a_head_of_their_own() -> None:
    topology = of_pools([CPU, GPU])
    assert [node.name for node in topology.nodes] == ["head", "cpu-1", "cpu-2", "cpu-3", "gpu-1", "gpu-2"]
    assert [node.running for node in topology.nodes] == [True, True, False, False, True, True]
    head, cpu, *_, gpu = topology.nodes
    assert (head.resources, head.pool) == ({HEAD_RESOURCE: 1.0}, None)
    assert (cpu.pool, cpu.price_per_hour, cpu.accelerators) == ("cpu", Decimal("0.5"), 0)
    assert (gpu.accelerators, gpu.accelerator_gib, accelerator_type(gpu)) == (2, 80, "A100")


def test_a_pool_may_hold_the_head() -> None:
    (node,) = of_pools([pool("box", head=True)]).nodes
    assert node.resources == {"CPU": 8, HEAD_RESOURCE: 1.0}
    assert node.name == "box"


def test_what_runs_is_known_by_its_pool_and_what_a_pool_may_still_start_is_added() -> None:
    runs = [
        Node("a", {"CPU": 8}, {"pool": "cpu"}),
        Node("b", {"CPU": 8, "GPU": 2, "accelerator_type:A100": 1}, {"pool": "gpu"}),
        Node("c", {"CPU": 2, "GPU": 1, "accelerator_type:L4": 1}),
    ]
    topology = with_pools(runs, [CPU, GPU], "the live cluster")
    a, b, c, *more = topology.nodes
    assert a.price_per_hour == Decimal("0.5")
    assert (b.accelerator_gib, b.resources["memory"]) == (80, 4 * 2**30)
    assert (c.accelerator_gib, c.price_per_hour) == (22.5, None)
    assert [(node.name, node.running) for node in more] == [("cpu-2", False), ("cpu-3", False)]


def test_the_file_of_rays_launcher_that_is_shipped() -> None:
    topology = of_launcher_file(ROOT / "ray-cluster.yaml", [pool("gpu", price_per_hour=1)])
    head, *workers = topology.nodes
    assert HEAD_RESOURCE in head.resources
    assert [node.pool for node in workers] == ["cpu"] * 8 + ["gpu"] * 4
    assert [node.name for node in workers if node.running] == ["cpu-worker-1"]
    assert (workers[-1].accelerator_gib, workers[-1].price_per_hour) == (22.5, 1)
    assert topology.most_nodes == 13


def launcher(tmp_path: Path, **fields: Any) -> Path:
    given = {
        "head_node_type": "head",
        "available_node_types": {"head": {"resources": {"CPU": 1}}, "w": {"resources": {"CPU": 4}}},
    }
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(given | fields))
    return file


def test_a_node_type_without_bounds_is_started_as_often_as_the_file_allows(tmp_path: Path) -> None:
    topology = of_launcher_file(launcher(tmp_path, max_workers=3))
    assert [(node.pool, node.running) for node in topology.nodes] == [("head", True), *[("w", False)] * 3]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head_node_type": "x"}, "needs `available_node_types`"),
        ({"available_node_types": {"head": {}}}, r"available_node_types.head.resources: say the CPU"),
        ({"available_node_types": {"head": {"resources": {"CPU": "x"}}}}, "available_node_types.head"),
        ({"max_workers": -1}, "max_workers must be a number from 0"),
        ({"max_workers": "many"}, "not 'many'"),
    ],
)
def test_a_launcher_file_that_tells_too_little_is_refused(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        of_launcher_file(launcher(tmp_path, **fields))


@pytest.mark.parametrize(("text", "said"), [("a: [", "is not YAML"), ("- 1", "must be a mapping")])
def test_what_is_no_launcher_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        of_launcher_file(file)
    with pytest.raises(ConfigError, match="cannot read"):
        of_launcher_file(tmp_path / "missing.yaml")
