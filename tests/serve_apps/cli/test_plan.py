"""`clustergraph plan`, against everything but a cluster that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.live import Deployed, Observed
from cluster.topology import HEAD_RESOURCE, Node
from serve_apps.cli import plan as plan_command
from serve_apps.cli.main import app
from serve_apps.cli.observing import NotObserved

ROOT = Path(__file__).parents[3]
POOLS = """
node_pools:
  - {name: cpu, cpus: 4, nodes: 2, price_per_hour: 0.4}
  - {name: gpu, cpus: 8, accelerator: {type: L4, count: 2, memory_gib: 24}, nodes: {max: 3}}
"""
CONFIG = """
models:
  - {name: tiny, engine: fake, replicas: 2}
  - {name: big, engine: vllm, source: x/y, accelerator_type: L4, tensor_parallel_size: %d}
gateway: {replicas: 2}
"""


def run(*args: object) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", *map(str, args)])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, tensor: int = 2, pools: str = POOLS) -> Path:
    file = folder / "deploy.yaml"
    file.write_text(CONFIG % tensor + pools)
    return file


def test_it_prints_where_everything_would_run(config: Path) -> None:
    result = run("--config", config)
    assert result.exit_code == 0, result.output
    for text in (
        "on node_pools of the config",
        "(L4, TP 2, PP 1)",
        "2 more nodes of gpu could be started",
        "on one node alone: accountant, model-big, store",
        "models.big: its size is not known, so memory was not looked at; say `parameters`",
        "0.80 dollars an hour; of 2 of the nodes the price is not known",
    ):
        assert text in result.output


def test_it_prints_the_same_for_machines(config: Path) -> None:
    told = json.loads(run("--config", config, "--json").output)
    assert (told["feasible"], told["refusals"], told["unplaced"]) == (True, [], {})
    assert {(each["service"], tuple(each["nodes"])) for each in told["replicas"]} >= {
        ("model-big", ("gpu-1",)),
        ("gateway", ("cpu-1",)),
        ("gateway", ("cpu-2",)),
    }
    assert told["nodes"][1] == {
        "name": "cpu-1",
        "pool": "cpu",
        "running": True,
        "used": True,
        "price_per_hour": "0.4",
        "free": {"CPU": 3.65},
        "free_gpus": [],
    }
    assert (told["cost_per_hour"], told["nodes_without_price"], told["changes"]) == ("0.8", 2, None)


def test_what_does_not_fit_is_told_with_exit_code_1(tmp_path: Path) -> None:
    result = run("--config", write(tmp_path, tensor=4))
    assert result.exit_code == 1
    assert "models.big: it needs 4 GPUs (L4) on one node for tensor_parallel_size 4" in result.output


def test_it_is_planned_against_a_file_of_rays_launcher(config: Path, tmp_path: Path) -> None:
    assert run("--config", write(tmp_path, 1), "--against", ROOT / "ray-cluster.yaml").exit_code == 0
    refused = run("--config", write(tmp_path, 2), "--against", ROOT / "ray-cluster.yaml")
    assert refused.exit_code == 1
    assert (
        "the largest node of ray-cluster.yaml has 1; take tensor_parallel_size 1 with pipe" in refused.output
    )


def test_the_room_for_calls_is_told_where_the_size_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    config = {"num_attention_heads": 8, "num_hidden_layers": 4, "hidden_size": 512, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"0" * 1024)
    text = write(tmp_path).read_text().replace("source: x/y", f"source: {folder}")
    (tmp_path / "deploy.yaml").write_text(text)
    told = json.loads(run("--config", tmp_path / "deploy.yaml", "--json").output)
    # 24 GiB · 0.9 - 1 for the engine, on two of them; 2048 tokens of 2 · 512 numbers in 4 layers of 2 bytes
    assert told["notes"] == ["models.big: room for 2636.8 calls of 2048 tokens at once, of max_num_seqs 32"]


SHARED = """
models:
  - {name: chat, engine: vllm, source: x/y, accelerator_type: L4, num_gpus: 0.5, parameters: 1b}
  - {name: embed, engine: fake, task: embed, accelerator_type: L4, num_gpus: 0.25}
  - {name: judge, engine: fake, accelerator_type: L4, num_gpus: 0.4}
node_pools:
  - {name: cpu, cpus: 4, price_per_hour: 0.4}
  - {name: gpu, cpus: 8, accelerator: {type: L4, count: 2}, price_per_hour: 1.6}
"""


def test_models_share_a_gpu_and_what_is_left_of_each_is_told(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(SHARED)
    printed = run("--config", file).output
    assert "0.25 GPU, 0.1 CPU (L4, TP 1, PP 1)" in printed
    assert "0.1 + 0.75 GPU" in printed
    told = json.loads(run("--config", file, "--json").output)
    assert told["nodes"][2]["free_gpus"] == [0.1, 0.75]
    assert told["nodes"][2]["free"]["GPU"] == 0.85
    assert (told["feasible"], told["cost_per_hour"]) == (True, "2.0")
    file.write_text(SHARED.replace("parameters: 1b", "parameters: 8b"))
    assert "models.chat: it needs 15.9 GiB on its GPU" in run("--config", file).output


def test_parts_that_may_leave_no_whole_gpu_are_told_of(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    big = "  - {name: big, engine: fake, accelerator_type: L4, tensor_parallel_size: 2}\nnode_pools:"
    file.write_text(SHARED.replace("node_pools:", big).replace("count: 2}", "count: 2}, nodes: 2"))
    told = json.loads(run("--config", file, "--json").output)
    assert told["feasible"]
    assert told["notes"][0] == (
        "Ray may spread the parts of GPUs over more nodes than this, and leave no whole ones to model-big: "
        "give what shares GPUs a node_pool of its own"
    )


def test_another_part_of_a_gpu_is_another_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(SHARED)
    settings = plan_command.load_settings(file)
    planned = plan_command.plan_on(settings, {}, plan_command.of_pools(settings.node_pools))
    models = tuple(each for each in plan_command.wanted(settings, planned) if each.version is not None)
    monkeypatch.setattr(plan_command, "observe", lambda *_: Observed(observed().nodes, models))
    file.write_text(SHARED.replace("num_gpus: 0.25", "num_gpus: 0.3"))
    told = json.loads(run("--config", file, "--diff", "--json").output)
    changed = {each["deployment"]: (each["kind"], each["why"]) for each in told["changes"]}
    assert changed["model-embed"] == (
        "restarted",
        "its config is another; it books other resources or nodes",
    )
    assert changed["model-judge"][0] == "unchanged"


def observed(*_: object) -> Observed:
    nodes = (Node("box", {"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0, HEAD_RESOURCE: 1.0}),)
    return Observed(nodes, (Deployed("gateway", 2, "x", "{}"), Deployed("model-old", 1, "x", "{}")))


def test_it_tells_what_deploying_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_command, "observe", observed)
    told = json.loads(run("--config", write(tmp_path, pools=""), "--diff", "--json").output)
    assert told["against"] == "the live cluster"
    assert {each["deployment"]: each["kind"] for each in told["changes"]} == {
        "accountant": "added",
        "gateway": "restarted",
        "model-big": "added",
        "model-old": "removed",
        "model-tiny": "added",
        "store": "added",
    }
    printed = run("--config", write(tmp_path, pools=""), "--diff").output
    assert "  model-old: removed" in printed
    assert "  gateway: restarted (every deployment replaces it)" in printed


def test_a_model_that_is_deployed_as_it_is_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, pools="")
    settings = plan_command.load_settings(file)
    planned = plan_command.plan_on(settings, {}, plan_command.of_pools([]))
    models = [each for each in plan_command.wanted(settings, planned) if each.version is not None]
    assert [each.name for each in models] == ["model-tiny", "model-big"]
    monkeypatch.setattr(plan_command, "observe", lambda *_: Observed(observed().nodes, tuple(models)))
    file.write_text(
        file.read_text().replace("name: tiny, engine: fake, replicas: 2", "name: tiny, engine: fake")
    )
    told = json.loads(run("--config", file, "--diff", "--json").output)
    kinds = {each["deployment"]: each["kind"] for each in told["changes"]}
    assert (kinds["model-tiny"], kinds["model-big"]) == ("scaled", "unchanged")


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("--config", write(tmp_path, pools=""), "--against", "config")
    assert "names no node_pools" in str(result.exception)

    def nobody(*_: object) -> Observed:
        raise NotObserved("nothing runs")

    monkeypatch.setattr(plan_command, "observe", nobody)
    assert "nothing runs" in str(run("--config", tmp_path / "deploy.yaml").exception)


def test_what_comes_and_goes_is_placed_at_its_most(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("replicas: 2}", "replicas: {min: 0, max: 3}}", 1))
    result = run("--config", file)
    assert result.exit_code == 0, result.output
    assert "0 to 3" in result.output
    assert "placed and priced with the most replicas that there may be of model-tiny" in result.output
    file.write_text(file.read_text().replace("max: 3", "max: 300"))
    assert "of 300" in run("--config", file).output
