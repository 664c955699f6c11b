"""`deploy/rayservice.yaml` holds together: Serve takes its config, our loader its deploy config, and every
pod has what it needs. What only a Kubernetes cluster can tell is not tested here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_apps.settings import Settings, load_settings
from tests.deploy.kuberay import problems

MANIFEST = Path(__file__).parent.parent.parent / "deploy" / "rayservice.yaml"
CONFIG_DIR = "/etc/cluster-graph-hybrid"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    """By kind; the store's Service is the only kind there is two of in principle, and has one."""
    loaded = list(yaml.safe_load_all(MANIFEST.read_text()))
    assert len({document["kind"] for document in loaded}) == len(loaded)
    return {document["kind"]: document for document in loaded}


@pytest.fixture(scope="module")
def spec(documents) -> dict[str, Any]:
    return documents["RayService"]["spec"]


@pytest.fixture(scope="module")
def groups(spec) -> dict[str, dict[str, Any]]:
    cluster = spec["rayClusterConfig"]
    return {"head": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }


@pytest.fixture
def settings(documents, tmp_path) -> Settings:
    path = tmp_path / "deploy.yaml"
    path.write_text(documents["ConfigMap"]["data"]["deploy.yaml"])
    return load_settings(path)


def test_kuberay_takes_it(documents):
    assert problems(documents["RayService"]) == []
    broken = json.loads(json.dumps(documents["RayService"]))
    broken["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    broken["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] = "one"
    assert len(problems(broken)) == 2


def test_the_head_may_be_replaced(spec, settings):
    redis = spec["rayClusterConfig"]["gcsFaultToleranceOptions"]["redisAddress"]
    assert settings.store.url == f"{redis}/0"


def test_serve_takes_its_config(spec):
    config = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "serve_apps.app:build"
    assert application.route_prefix == "/"
    assert config.http_options.port == 8000


def test_the_application_reads_the_mounted_config(spec, groups):
    config = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]["config"]
    assert config == f"{CONFIG_DIR}/deploy.yaml"
    for group in groups.values():
        (container,) = group["template"]["spec"]["containers"]
        assert CONFIG_DIR in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_our_loader_takes_the_deploy_config(settings):
    (model,) = settings.models
    assert model.engine == "vllm"
    assert not model.on_cpu


def test_several_machines_share_one_store(settings, documents):
    service = documents["Service"]["metadata"]["name"]
    assert settings.store.url == f"redis://{service}:6379/0"
    policy = documents["NetworkPolicy"]["spec"]
    store_labels = documents["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == store_labels == documents["Service"]["spec"]["selector"]


def test_ray_asks_for_a_token_everywhere(spec):
    assert spec["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_every_pod_starts_with_the_same_environment(groups):
    for group in groups.values():
        (container,) = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_every_pod_gets_the_pepper_where_the_gateway_looks_for_it(groups, settings):
    for group in groups.values():
        (init,) = group["template"]["spec"]["initContainers"]
        assert f"install -m 600 /secret/pepper {settings.pepper_file}" in init["command"][-1]
        mounts = {mount["name"] for mount in init["volumeMounts"]}
        assert mounts <= {volume["name"] for volume in group["template"]["spec"]["volumes"]}


def test_the_head_does_no_work_and_is_not_served_from(spec, groups):
    assert groups["head"]["rayStartParams"]["num-cpus"] == "0"
    assert groups["head"]["rayStartParams"]["dashboard-host"] == "0.0.0.0", "the operator deploys through it"
    assert spec["excludeHeadPodFromServeSvc"] is True


def test_workers_scale_and_the_gateway_always_has_a_home(spec, groups):
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    assert groups["cpu"]["minReplicas"] >= 1
    assert groups["gpu-l4"]["minReplicas"] == 0
    for name in ("cpu", "gpu-l4"):
        assert groups[name]["maxReplicas"] > groups[name]["minReplicas"]


def test_a_gpu_group_offers_the_accelerator_that_the_model_asks_for(groups, settings):
    group = groups["gpu-l4"]
    # KubeRay hands the value to a shell: JSON, in quotes of its own.
    offered = json.loads(json.loads(group["rayStartParams"]["resources"]))
    (container,) = group["template"]["spec"]["containers"]
    (model,) = settings.models
    assert offered == {f"accelerator_type:{model.accelerator_type}": 1}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_images_are_of_the_ray_version_that_the_cluster_declares(spec, groups):
    dockerfile = (MANIFEST.parent / "Dockerfile").read_text()
    assert f"rayproject/ray:{spec['rayClusterConfig']['rayVersion']}-py311" in dockerfile
    images = {
        container["image"]
        for group in groups.values()
        for container in group["template"]["spec"]["containers"]
    }
    assert images == {"cluster-graph-hybrid:0.1.0-cpu", "cluster-graph-hybrid:0.1.0-gpu"}
