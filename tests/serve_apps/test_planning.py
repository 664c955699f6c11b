"""What a config asks for, and that it is refused before anything is deployed."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cluster.config import VllmSpec
from cluster.errors import ConfigError
from cluster.topology import of_pools
from graphs.functions import function
from serve_apps import planning
from serve_apps.app import BuildArguments, build
from serve_apps.pipelines import load_plans
from serve_apps.planning import check, model_size, near_of, plan_on, services_of
from serve_apps.settings import Settings, load_settings

GRAPH = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: chain, version: 1.0.0}
inputs: {text: string}
nodes:
  clean: {function: "tests.serve_apps.test_planning:clean", with: {text: "${inputs.text}"}}
  first: {llm: {model: big}, with: {prompt: "${clean.value}"}}
  last: {llm: {model: small}, with: {prompt: "${first.text}"}}
outputs: {text: "${last.text}"}
"""
POOLS = """
node_pools:
  - {name: head, cpus: 0, head: true, price_per_hour: 0.2}
  - {name: cpu, cpus: 8, nodes: 2, price_per_hour: 0.4}
  - {name: gpu, cpus: 8, accelerator: {type: A100-80G, count: 2}, nodes: {min: 0, max: 2}, price_per_hour: 7}
"""
MODELS = """
models:
  - {name: small, engine: fake, replicas: 2, spread: require}
  - name: big
    engine: vllm
    source: x/y
    accelerator_type: A100-80G
    node_pool: gpu
    parameters: 32b
    replicas: 2
    tensor_parallel_size: %d
"""


@function(num_cpus=2)
def clean(text: str) -> str:
    return text.strip()


def write(folder: Path, tensor: int = 1, rest: str = POOLS) -> Path:
    (folder / "chain.yaml").write_text(GRAPH)
    file = folder / "deploy.yaml"
    file.write_text(f"data_dir: data\ngraphs: [chain.yaml]\nrunner: {{replicas: 2}}\n{MODELS % tensor}{rest}")
    return file


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(write(tmp_path))


def test_everything_that_runs_is_asked_for(settings: Settings) -> None:
    services = {service.name: service for service in services_of(settings, load_plans(settings))}
    assert list(services) == [
        "model-small", "model-big", "runner", "graphs.chain@1.0.0.clean", "gateway", "store", "accountant",
    ]  # fmt: skip
    function_ = services["graphs.chain@1.0.0.clean"]
    assert (function_.replicas, function_.groups, function_.pools) == (2, ({"CPU": 2.0},), ("head", "cpu"))
    assert services["runner"].replicas == 2
    assert services["model-big"].pools == ("gpu",)


def test_everything_has_a_place_and_a_price(settings: Settings) -> None:
    plans = load_plans(settings)
    planned = plan_on(settings, plans, of_pools(settings.node_pools))
    assert planned.refused() == ""
    pools = defaultdict(set)
    for placed in planned.placement.placed:
        pools[placed.service].update(name.split("-")[0] for name in placed.nodes)
    assert pools.pop("model-big") == {"gpu"}
    assert pools.pop("store") == pools.pop("accountant") == {"head"}
    assert set().union(*pools.values()) == {"cpu"}
    assert str(planned.placement.per_hour()) == "8.0", (
        "the head, two of cpu, and one of gpu for both replicas"
    )


def test_models_that_feed_each_other_are_known_from_the_graphs(settings: Settings) -> None:
    assert near_of(settings, load_plans(settings)) == (("model-big", "model-small"),)


REFUSED = (
    "  models.big: it needs 4 GPUs (A100-80G) on one node for tensor_parallel_size 4; the largest node of "
    "pool gpu has 2; take tensor_parallel_size 1"
)


def test_what_does_not_fit_is_refused_while_it_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        build(BuildArguments(config=write(tmp_path, tensor=4)))
    assert str(refused.value) == f"this does not fit on node_pools of the config:\n{REFUSED}"


def test_the_cluster_that_runs_is_asked_where_there_is_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning.live, "topology", lambda pools: of_pools(pools[:2]))
    plans = load_plans(settings)
    with pytest.raises(ConfigError, match=r"models.big: node_pools of the config has no node of pool gpu"):
        check(settings, plans, grows=False)
    check(settings, plans, grows=True)  # nodes may come that nobody has named


def test_a_deployment_says_that_parts_of_gpus_may_crowd_out_whole_ones(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(
        "models:\n"
        "  - {name: half, engine: fake, accelerator_type: L4, num_gpus: 0.5, replicas: 2}\n"
        "  - {name: big, engine: fake, accelerator_type: L4}\n"
        "node_pools: [{name: gpu, cpus: 4, nodes: 2, accelerator: {type: L4}}]\n"
    )
    settings = load_settings(file)
    with capture_logs() as logged:
        check(settings, {}, grows=False)
    (said,) = logged
    assert said["why"].endswith("no whole ones to model-big: give what shares GPUs a node_pool of its own")
    file.write_text(file.read_text().replace("nodes: 2", "nodes: 3"))
    with capture_logs() as logged:
        check(load_settings(file), {}, grows=False)
    assert logged == [], "there is a whole one wherever the parts go"


def test_without_a_cluster_and_without_pools_nothing_is_known_to_be_wrong(tmp_path: Path) -> None:
    file = write(tmp_path, tensor=4, rest="")
    file.write_text(file.read_text().replace("    node_pool: gpu\n", ""))
    bare = load_settings(file)
    with capture_logs() as logged:
        check(bare, load_plans(bare), grows=False)
        check(bare, load_plans(bare), grows=True)
    assert logged == []


def test_the_size_of_a_model_that_is_not_here_is_what_its_spec_says(tmp_path: Path) -> None:
    spec = VllmSpec(name="v", engine="vllm", source="bundled/smollm2")
    assert model_size(spec, tmp_path) is None, "not prepared yet"
    known = model_size(spec.model_copy(update={"parameters": 10}), tmp_path)
    assert known is not None
    assert known.weights_bytes == 40
