"""The RayService that is made from a deploy config is one that KubeRay, Serve and our loader take."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.errors import ConfigError
from serve_apps.manifests.bundle import bundle
from serve_apps.manifests.rayservice import CONFIG_DIR, DATA_DIR, Images, manifests
from serve_apps.settings import load_settings
from tests.deploy.kuberay import problems

POOLS = """
node_pools:
  - {name: cpu, cpus: 8, memory_gib: 32, nodes: {min: 1, max: 8}, price_per_hour: 0.41}
  - {name: GPU.l4, cpus: 7.5, accelerator: {type: L4, count: 2}, nodes: {min: 0, max: 4}, labels: {zone: a}}
"""
STORE = "store: {url: 'redis://store:6380/0'}\n"
MODELS = """
models:
  - {name: tiny, engine: fake}
  - {name: big, engine: vllm, source: org/big, accelerator_type: L4, tensor_parallel_size: 2}
"""
IMAGES = Images(cpu="registry.example.com/cgh:cpu", gpu="registry.example.com/cgh:gpu")


def made(folder: Path, text: str = MODELS + STORE + POOLS) -> tuple[dict[str, Any], dict[str, Any]]:
    config = folder / "deploy.yaml"
    config.write_text(text)
    secret, service = manifests(load_settings(config), bundle(config, DATA_DIR), IMAGES)
    assert problems(service) == []
    return secret, service


@pytest.fixture
def secret(tmp_path: Path) -> dict[str, Any]:
    return made(tmp_path)[0]


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    service = made(tmp_path)[1]
    return service["spec"]["rayClusterConfig"]


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_serve_takes_its_config_and_reads_the_mounted_one(tmp_path: Path) -> None:
    _, service = made(tmp_path)
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "serve_apps.app:build"
    assert application.args["config"] == f"{CONFIG_DIR}/deploy.yaml"
    assert (config.http_options.host, config.http_options.port) == ("0.0.0.0", 8000)


def test_node_pools_are_groups_of_pods(cluster: dict[str, Any]) -> None:
    cpu, gpu = cluster["workerGroupSpecs"]
    assert (cpu["groupName"], gpu["groupName"]) == ("cpu", "gpu-l4")
    assert [cpu[field] for field in ("replicas", "minReplicas", "maxReplicas")] == [1, 1, 8]
    assert [gpu[field] for field in ("replicas", "minReplicas", "maxReplicas")] == [0, 0, 4]
    assert cluster["enableInTreeAutoscaling"] is True
    (container,) = cpu["template"]["spec"]["containers"]
    assert container["image"] == IMAGES.cpu
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "32768Mi"},
        "limits": {"memory": "32768Mi"},
    }
    (container,) = gpu["template"]["spec"]["containers"]
    assert container["image"] == IMAGES.gpu
    assert container["resources"] == {
        "requests": {"cpu": "7.5", "nvidia.com/gpu": 2},
        "limits": {"nvidia.com/gpu": 2},
    }
    assert gpu["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "tolerations" not in cpu["template"]["spec"]


def test_ray_knows_of_nodes_that_are_not_there_yet(cluster: dict[str, Any]) -> None:
    gpu = cluster["workerGroupSpecs"][1]
    assert gpu["labels"] == {"pool": "GPU.l4", "zone": "a", "ray.io/accelerator-type": "L4"}
    assert gpu["resources"] == {"CPU": "7.5", "GPU": "2", "accelerator_type:L4": "1"}


def test_pods_have_whole_gpus_for_models_that_share_them_too(tmp_path: Path, cluster: dict[str, Any]) -> None:
    shared = MODELS.replace("tensor_parallel_size: 2", "num_gpus: 0.25")
    _, service = made(tmp_path, shared + STORE + POOLS)
    of_one, of_other = (
        made_for["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["resources"]
        for made_for in (cluster, service["spec"]["rayClusterConfig"])
    )
    assert of_one == of_other
    assert of_one["limits"]["nvidia.com/gpu"] == 2


def test_the_head_is_apart_unless_a_pool_holds_it(cluster: dict[str, Any], tmp_path: Path) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pools = "node_pools: [{name: all, cpus: 4, head: true}, {name: more, cpus: 4, nodes: 2}]\n"
    _, service = made(tmp_path, MODELS + STORE + pools)
    assert service["spec"]["excludeHeadPodFromServeSvc"] is False
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is False
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "4"
    assert head["labels"] == {"pool": "all"}
    assert head["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "4"
    assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == ["more"]


def test_ray_asks_for_a_token_and_its_head_may_be_lost(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == metadata.version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["gcsFaultToleranceOptions"] == {"redisAddress": "redis://store:6380"}


def test_the_password_of_the_store_is_in_a_secret_alone(tmp_path: Path) -> None:
    text = MODELS + POOLS + "store: {url: 'rediss://me:open-sesame@store.internal'}\n"
    secret, service = made(tmp_path, text)
    options = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "rediss://store.internal:6379"
    assert options["redisUsername"] == {"value": "me"}
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"]["key"] == "redis-password"
    assert "open-sesame" not in yaml.safe_dump(service)
    assert secret["kind"] == "Secret"


def test_every_pod_has_the_config_the_pepper_and_the_environment(
    cluster: dict[str, Any], secret: dict[str, Any], tmp_path: Path
) -> None:
    settings = load_settings(tmp_path / "deploy.yaml").model_copy(update={"data_dir": Path(DATA_DIR)})
    for pod in pods(cluster):
        (container,) = pod["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
        assert container["envFrom"][0]["secretRef"]["optional"] is True
        (init,) = pod["initContainers"]
        assert f"install -m 600 /secret/pepper {settings.pepper_file}" in init["command"][-1]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {each["name"] for each in (*container["volumeMounts"], *init["volumeMounts"])}
        assert mounts == volumes.keys()
        assert volumes["config"]["secret"]["secretName"] == secret["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        items = {item["key"]: item["path"] for item in volumes["config"]["secret"]["items"]}
        assert items.keys() == secret["stringData"].keys()
        assert items["deploy.yaml"] == "deploy.yaml"


def test_files_keep_their_paths(tmp_path: Path) -> None:
    names = ["docs/a-b.md", "docs/a/b.md", "docs_a_b.md", "docs/ü.md"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    index = "indexes: {manual: {model: tiny, corpus: [docs, docs_a_b.md]}}\n"
    secret, service = made(tmp_path, MODELS + STORE + POOLS + index)
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    items = next(volume["secret"]["items"] for volume in head["volumes"] if volume["name"] == "config")
    carried = {item["path"]: secret["stringData"][item["key"]] for item in items}
    assert len(carried) == len(secret["stringData"]) == 5
    for place, name in ((0, "a-b.md"), (0, "a/b.md"), (0, "ü.md")):
        assert carried[f"corpus/manual/{place}/{name}"] == f"docs/{name}"
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for key in secret["stringData"])


def test_another_config_is_another_secret(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    same, _ = made(tmp_path)
    changed, _ = made(tmp_path, MODELS + STORE + POOLS + "gateway: {replicas: 3}\n")
    assert first["metadata"]["name"] == same["metadata"]["name"] != changed["metadata"]["name"]
    assert first["immutable"] is True


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MODELS + STORE, "node_pools: name the machines"),
        (MODELS + STORE + "node_pools: [{name: all, cpus: 4, head: true}]", "node_pools: name the machines"),
        (MODELS + POOLS, r"store\.url: pods share one store"),
        (MODELS + POOLS + "store: {url: 'unix:///run/valkey.sock'}", r"store\.url"),
    ],
)
def test_what_kubernetes_has_to_know_is_asked_for(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        made(tmp_path, text)
