"""What Ray tells of its nodes, read; `test_fake_cluster` asks a real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from cluster import live
from cluster.node_pools import NodePoolSpec
from cluster.topology import HEAD_RESOURCE


def told(
    node_id: str, alive: bool = True, labels: dict[str, str] | None = None, **resources: float
) -> dict[str, Any]:
    return {
        "NodeID": node_id * 8,
        "Alive": alive,
        "NodeManagerAddress": "10.0.0.1",
        "Resources": {"node:10.0.0.1": 1.0, "memory": 1e9, "object_store_memory": 1e8} | resources,
        "Labels": {"ray.io/node-id": node_id * 8} | (labels or {}),
    }


def test_nodes_that_are_alive_with_what_can_be_booked(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        told("bb", CPU=4.0, labels={"pool": "cpu"}),
        told("cc", alive=False, CPU=4.0),
        told("aa", **{HEAD_RESOURCE: 1.0}),
    ]
    monkeypatch.setattr(live.ray, "nodes", lambda: nodes)
    head, cpu = live.nodes()
    assert (head.name, head.resources) == ("10.0.0.1/aaaaaaaa", {HEAD_RESOURCE: 1.0})
    assert (cpu.pool, cpu.resources) == ("cpu", {"CPU": 4.0})


def test_the_cluster_is_known_only_to_who_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = NodePoolSpec.model_validate({"name": "cpu", "cpus": 4, "nodes": {"max": 2}})
    monkeypatch.setattr(live.ray, "nodes", lambda: [told("aa", CPU=4.0, labels={"pool": "cpu"})])
    monkeypatch.setattr(live.ray, "is_initialized", lambda: False)
    assert live.topology([pool]) is None
    monkeypatch.setattr(live.ray, "is_initialized", lambda: True)
    found = live.topology([pool])
    assert found is not None
    assert [(node.name, node.running) for node in found.nodes] == [
        ("10.0.0.1/aaaaaaaa", True),
        ("cpu-2", False),
    ]


def test_what_a_deployment_books_has_one_form() -> None:
    """Serve fills in nothing that was not said, so that what runs and what is to run can be compared."""

    def booked(**options: Any) -> str:
        return live.options_of(serve.deployment(SimpleNamespace, **options)._replica_config)

    assert booked() == booked(ray_actor_options={"num_cpus": 1})
    assert booked(ray_actor_options={"num_cpus": 2}) != booked()
    assert booked(max_replicas_per_node=1) != booked()


def test_where_serve_does_not_run_nothing_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.serve_context, "_get_global_client", lambda **_: None)
    assert live.deployed() == ()
