"""The config file of Serve is one that Serve takes, and another where what it says is another."""

from __future__ import annotations

from ray.serve.schema import ServeDeploySchema

from cluster.autoscaling.model import PoolScale, Scaling
from cluster.autoscaling.serve_policy import ApplicationPolicy
from serve_apps.manifests.serve_config import revision_of, serve_config

SCALING = Scaling({"model-a": PoolScale(0, 4, 2, 1.0)}, "runner", {"g": {"model-a": 1.0}}, 1.0, 0.95, 60, 300)


def test_the_policy_of_the_application_is_in_it() -> None:
    told = serve_config("/c.yaml", host="127.0.0.1", port=8000, revision="r", scaling=SCALING)
    (application,) = ServeDeploySchema.model_validate(told).applications
    assert application.args == {"config": "/c.yaml", "revision": "r"}
    assert application.autoscaling_policy["policy_function"].endswith(":ApplicationPolicy")
    assert ApplicationPolicy(**application.autoscaling_policy["policy_kwargs"])({}) == ({}, {})


def test_without_anything_that_scales_there_is_none() -> None:
    told = serve_config("/c.yaml", host="127.0.0.1", port=8000, revision="r")
    assert "autoscaling_policy" not in told["applications"][0]


def test_another_config_or_graph_is_another_revision() -> None:
    made = revision_of([b"models: []"], ["a", "b"])
    assert made == revision_of([b"models: []"], ["b", "a"])
    others = {revision_of([b"models: [ ]"], ["a", "b"]), revision_of([b"models: []"], ["a"])}
    assert len({made, *others}) == 3
