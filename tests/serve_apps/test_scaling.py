"""What the policy is told of a deploy config."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.autoscaling.model import Scaling
from cluster.errors import ConfigError
from runtime.compiler.estimates import DECODE_S, PREFILL_S
from serve_apps.pipelines import load_plans
from serve_apps.scaling import scaling_of
from serve_apps.settings import load_settings

GRAPH = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: chain, version: 1.0.0}
inputs: {text: string}
nodes:
  first: {llm: {model: big, max_tokens: 100, max_prompt_tokens: 200}, with: {prompt: "${inputs.text}"}}
  second: {llm: {model: small, max_tokens: 10, max_prompt_tokens: 20}, with: {prompt: "${first.text}"}}
  third: {llm: {model: tuned, max_tokens: 10, max_prompt_tokens: 20}, with: {prompt: "${second.text}"}}
outputs: {text: "${third.text}"}
"""
CONFIG = """
graphs: [chain.yaml]
models:
  - {name: small, engine: fake, max_num_seqs: 16, replicas: {min: 0, max: 4}}
  - name: big
    engine: vllm
    source: x/y
    accelerator_type: L4
    loras: {}
    replicas: {min: 1, max: 8, at_once: 12}
  - {name: tuned, engine: lora, base: big, source: x/z}
  - {name: fixed, engine: fake, replicas: 2}
node_pools:
  - {name: cpu, cpus: 8, nodes: 4, price_per_hour: 0.4}
  - {name: gpu, cpus: 8, accelerator: {type: L4, count: 2}, nodes: 4, price_per_hour: 3}
"""


def scaling(folder: Path, text: str = CONFIG, more: str = "") -> Scaling | None:
    (folder / "chain.yaml").write_text(GRAPH)
    file = folder / "deploy.yaml"
    file.write_text(text + more)
    settings = load_settings(file)
    return scaling_of(settings, load_plans(settings))


def test_pools_paths_and_what_was_said(tmp_path: Path) -> None:
    made = scaling(
        tmp_path, more="autoscaling: {wait: 500ms, down_after: 30s, zero_after: 2m, max_cost_per_hour: 20}\n"
    )
    assert made is not None
    assert set(made.pools) == {"model-small", "model-big"}
    big = made.pools["model-big"]
    assert (big.least, big.most, big.at_once) == (1, 8, 12)
    # Half of the bounds of both nodes that call it, one by its adapter.
    assert big.seconds == pytest.approx((110 * PREFILL_S + 55 * DECODE_S) / 2)
    assert made.pools["model-small"].at_once == 16
    assert made.paths == {"chain": {"runner": 1, "model-big": 2, "model-small": 1}} | {}
    assert (made.wait_s, made.down_after_s, made.zero_after_s, made.max_per_hour) == (0.5, 30, 120, 20)


def test_a_replica_costs_its_part_of_a_node(tmp_path: Path) -> None:
    made = scaling(tmp_path)
    assert made is not None
    assert made.pools["model-big"].per_hour == pytest.approx(3 / 2)  # one of two GPUs
    assert made.pools["model-small"].per_hour == pytest.approx(0.4 * 0.1 / 8)
    priced = CONFIG.replace("max_num_seqs: 16,", "price: {per_hour: 0.9},")
    assert scaling(tmp_path, priced).pools["model-small"].per_hour == pytest.approx(0.9)  # type: ignore[union-attr]


def test_a_replica_on_a_part_of_a_gpu_costs_that_part_of_it(tmp_path: Path) -> None:
    text = CONFIG.replace("    loras: {}\n", "    loras: {}\n    num_gpus: 0.25\n    num_cpus: 0.5\n")
    made = scaling(tmp_path, text)
    assert made is not None
    assert made.pools["model-big"].per_hour == pytest.approx(3 / 8)  # a quarter of one of two GPUs


def test_the_runner_scales_too(tmp_path: Path) -> None:
    made = scaling(tmp_path, more="runner: {replicas: {min: 0, max: 4}, max_ongoing_requests: 64}\n")
    assert made is not None
    runner = made.pools["runner"]
    assert (runner.least, runner.most, runner.at_once) == (0, 4, 32)
    assert runner.seconds > made.pools["model-big"].seconds


def test_nothing_is_said_where_nothing_scales(tmp_path: Path) -> None:
    text = CONFIG.replace("{min: 0, max: 4}", "1").replace("{min: 1, max: 8, at_once: 12}", "1")
    assert scaling(tmp_path, text) is None


def test_a_budget_must_be_enough_for_one_of_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_cost_per_hour: 1 is less than 1\.5.*model-big 1\.50"):
        scaling(tmp_path, more="autoscaling: {max_cost_per_hour: 1}\n")


def test_a_budget_without_prices_bounds_nothing(tmp_path: Path) -> None:
    text = CONFIG.replace(", price_per_hour: 0.4", "").replace(", price_per_hour: 3", "")
    with pytest.raises(ConfigError, match="nothing that scales has a price: say `price"):
        scaling(tmp_path, text, "autoscaling: {max_cost_per_hour: 5}\n")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{down_after: 10m, zero_after: 1m}", r"zero_after \(60 s\) must be at least down_after \(600 s\)"),
        ("{wait: 0}", "expected a length of time"),
        ("{in_time: 1}", "less than or equal to 0.9999"),
        ("{max_cost: 5}", "did you mean 'max_cost_per_hour'"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, said: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        scaling(tmp_path, more=f"autoscaling: {said}\n")
