"""`ray-cluster.yaml` is what Ray's cluster launcher accepts, and sets what the project relies on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.config import VllmSpec
from serve_apps.settings import load_settings

ROOT = Path(__file__).parent.parent
SCHEMA = Path(ray.autoscaler.__file__).with_name("ray-schema.json")

REQUIRED_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
}
TOKEN = "~/.ray/auth_token"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())


@pytest.fixture
def prepared(config, monkeypatch) -> dict[str, Any]:
    """As the launcher sees it: defaults filled in, setup commands merged."""
    monkeypatch.chdir(ROOT)
    return prepare_config(config)


def start_environment(command: str) -> dict[str, str]:
    """Variables that the command exports before it calls `ray start`. Fails where it never does."""
    exported, _, rest = command.partition(";")
    words = shlex.split(exported)
    assert words[0] == "export"
    assert "ray start" in rest
    assert "ray start" not in exported
    return dict(word.split("=", 1) for word in words[1:])


def ray_start(commands: list[str]) -> str:
    (command,) = [command for command in commands if "ray start" in command]
    return command


def test_it_follows_rays_own_schema(config):
    schema = json.loads(SCHEMA.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(config)] == []


def test_the_launcher_accepts_it(prepared):
    validate_config(prepared)
    assert prepared["head_node_type"] == "head"


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_starts_ray_with_the_environment(prepared, commands):
    environment = start_environment(ray_start(prepared[commands]))
    assert REQUIRED_ENVIRONMENT.items() <= environment.items()
    assert 1 <= float(environment["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]) <= 30


def test_head_and_workers_start_with_the_same_environment(prepared):
    assert start_environment(ray_start(prepared["head_start_ray_commands"])) == start_environment(
        ray_start(prepared["worker_start_ray_commands"])
    )


def test_every_node_gets_the_token_as_a_file_and_closes_it_to_others(prepared):
    assert prepared["file_mounts"][TOKEN] == TOKEN
    gpu_setup = prepared["available_node_types"]["gpu-worker"]["worker_setup_commands"]
    for setup in (prepared["head_setup_commands"], prepared["worker_setup_commands"], gpu_setup):
        assert any(f"chmod 600 {TOKEN}" in command for command in setup)


def test_every_node_gets_the_pepper_where_the_gateway_looks_for_it(prepared):
    pepper = load_settings(ROOT / "deploy" / "qwen.yaml").pepper_file.relative_to(Path.home())
    assert "~/pepper" in prepared["file_mounts"]
    gpu_setup = prepared["available_node_types"]["gpu-worker"]["worker_setup_commands"]
    for setup in (prepared["head_setup_commands"], prepared["worker_setup_commands"], gpu_setup):
        assert any(f"install -m 600 ~/pepper ~/{pepper}" in command for command in setup)


def test_a_gpu_worker_can_take_a_replica_of_the_sample_config(prepared):
    gpu = prepared["available_node_types"]["gpu-worker"]["resources"]
    (model,) = load_settings(ROOT / "deploy" / "qwen.yaml").models
    assert isinstance(model, VllmSpec)
    assert gpu[f"accelerator_type:{model.accelerator_type}"] == 1
    assert gpu["CPU"] >= model.num_cpus
    assert gpu["GPU"] >= model.tensor_parallel_size


def test_no_token_is_written_down(config):
    assert "RAY_AUTH_TOKEN=" not in yaml.safe_dump(config)


def test_the_dashboard_listens_on_the_heads_loopback_only(prepared):
    assert "--dashboard-host=127.0.0.1" in ray_start(prepared["head_start_ray_commands"])


def test_the_head_does_no_work_and_workers_scale(prepared):
    types = prepared["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["cpu-worker"]["min_workers"] >= 1
    assert types["gpu-worker"]["min_workers"] == 0
    for name in ("cpu-worker", "gpu-worker"):
        assert types[name]["max_workers"] > types[name]["min_workers"]
    assert sum(kind["max_workers"] for kind in types.values()) <= prepared["max_workers"]


def test_gpu_workers_say_which_accelerator_they_have_before_they_exist(prepared):
    gpu = prepared["available_node_types"]["gpu-worker"]
    accelerator = gpu["labels"]["ray.io/accelerator-type"]
    assert gpu["resources"]["GPU"] >= 1
    assert gpu["resources"][f"accelerator_type:{accelerator}"] == 1


def test_the_images_carry_the_ray_of_the_lock_file(prepared):
    (locked,) = [
        line.split()[0].removeprefix("ray==")
        for line in (ROOT / "requirements" / "cpu.lock").read_text().splitlines()
        if line.startswith("ray==")
    ]
    images = [
        prepared["docker"]["image"],
        prepared["available_node_types"]["gpu-worker"]["docker"]["worker_image"],
    ]
    for image in images:
        assert image.startswith(f"rayproject/ray:{locked}-py311")


def test_every_mounted_path_of_the_repository_exists(config):
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert {"graphs", "cluster", "runtime", "serve_apps", "requirements", "pyproject.toml"} <= set(local)
    for path in local:
        assert (ROOT / path).exists(), path


def test_cpu_nodes_install_the_locked_requirements_with_their_hashes(prepared):
    for setup in (prepared["head_setup_commands"], prepared["worker_setup_commands"]):
        assert any("--no-deps --require-hashes" in command and "cpu.lock" in command for command in setup)


def test_gpu_nodes_install_theirs(prepared):
    setup = prepared["available_node_types"]["gpu-worker"]["worker_setup_commands"]
    assert any("--no-deps --require-hashes" in command and "gpu.lock" in command for command in setup)
    assert not any("torch-backend" in command for command in setup), "CUDA builds are on the default index"


def test_the_head_knows_where_to_keep_what_it_must_not_forget(config, prepared):
    assert prepared["file_mounts"]["~/head-environment"] == "~/.cluster-graph-hybrid/head-environment"
    command = ray_start(prepared["head_start_ray_commands"])
    assert ". ~/head-environment;" in command.partition("ray start")[0]
    assert '${RAY_REDIS_PASSWORD:+--redis-password="$RAY_REDIS_PASSWORD"}' in command
    assert "redis" not in ray_start(prepared["worker_start_ray_commands"])


def test_a_shell_on_the_head_has_the_environment_of_ray(prepared):
    (command,) = [command for command in prepared["head_setup_commands"] if "bashrc" in command]
    exported = shlex.split(command.split("echo ")[1])[0]
    names = dict(word.split("=", 1) for word in exported.split()[1:])
    started = start_environment(ray_start(prepared["head_start_ray_commands"]))
    assert names["RAY_AUTH_MODE"] == "token"
    assert names.items() <= started.items()
