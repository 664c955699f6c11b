from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import FakeSpec, LoraSpec, VllmSpec
from cluster.errors import ConfigError
from cluster.vllm_options import DraftSpeculation
from serve_apps.pipelines import catalog
from serve_apps.settings import load_settings

CONFIGS = Path(__file__).parents[2] / "serve_apps" / "configs"
FAKE = "models: [{name: tiny, engine: fake}]\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "deploy.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", ["quickstart", "fake"])
def test_the_shipped_configs_load_and_name_files_that_exist(name: str) -> None:
    settings = load_settings(CONFIGS / f"{name}.yaml")
    assert len(settings.graphs) == 9
    assert all(graph.is_file() for graph in settings.graphs)
    assert all(prompts.is_dir() for prompts in settings.prompts)
    assert all(path.is_dir() for index in settings.indexes.values() for path in index.corpus)


def test_mcp_servers_may_be_named_by_graphs(tmp_path: Path) -> None:
    text = FAKE + "mcp: {tickets: {url: 'https://mcp.example.com/mcp'}, files: {command: [serve, /srv]}}\n"
    settings = load_settings(write(tmp_path, text))
    assert settings.mcp["files"].command == ["serve", "/srv"]
    assert catalog(settings).servers == {"tickets", "files"}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = FAKE + "data_dir: ../data\ngraphs: [a.yaml, /b.yaml]\nprompts: [prompts]\n"
    settings = load_settings(write(tmp_path, text))
    assert settings.data_dir == tmp_path.parent / "data"
    assert settings.graphs == [tmp_path / "a.yaml", Path("/b.yaml")]
    assert settings.prompts == [tmp_path / "prompts"]


def test_a_model_folder_is_relative_to_the_file_and_an_id_is_left_alone(tmp_path: Path) -> None:
    text = (
        "models:\n"
        "  - {name: a, engine: vllm, source: ./weights}\n"
        "  - {name: b, engine: vllm, source: Qwen/Qwen3-8B, accelerator_type: L4}\n"
    )
    first, second = load_settings(write(tmp_path, text)).models
    assert isinstance(first, VllmSpec)
    assert isinstance(second, VllmSpec)
    assert first.source == str(tmp_path / "weights")
    assert second.source == "Qwen/Qwen3-8B"


def test_the_file_of_a_providers_key_is_relative_to_the_file_too(tmp_path: Path) -> None:
    remote = "engine: anthropic, base_url: 'https://api.example.com/v1'"
    config = write(
        tmp_path,
        f"models:\n  - {{name: a, {remote}, api_key_file: secrets/key}}\n"
        f"  - {{name: b, {remote}, api_key_file: /run/key}}\n",
    )
    files = [getattr(model, "api_key_file", None) for model in load_settings(config).models]
    assert files == [tmp_path / "secrets" / "key", Path("/run/key")]


def test_folders_of_adapters_and_of_drafts_are_relative_to_the_file_too(tmp_path: Path) -> None:
    text = (
        "models:\n"
        "  - {name: a, engine: vllm, source: org/a, loras: {}, max_context: 4096,\n"
        "     speculative: {method: draft_model, source: ./draft}}\n"
        "  - {name: b, engine: lora, base: a, source: ./adapter}\n"
    )
    base, adapter = load_settings(write(tmp_path, text)).models
    assert isinstance(base, VllmSpec)
    assert isinstance(base.speculative, DraftSpeculation)
    assert base.speculative.source == str(tmp_path / "draft")
    assert isinstance(adapter, LoraSpec)
    assert adapter.source == str(tmp_path / "adapter")
    assert adapter.max_context == 4096


def test_the_engine_decides_which_fields_a_model_has(tmp_path: Path) -> None:
    (model,) = load_settings(write(tmp_path, FAKE)).models
    assert isinstance(model, FakeSpec)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: []", r"models: .*at least 1"),
        ("[1, 2]", "must be a mapping"),
        ("models: [", "not YAML"),
        ("models: [{name: a, engine: vlm}]", "models.0: .*'vllm', 'lora', 'onnx', 'fake'"),
        ("models: [{name: a b, engine: fake}]", "models.0.fake.name"),
        ("models: [{name: a, engine: fake, replica: 2}]", "models.0.fake.replica"),
        ("models: [{name: a, engine: fake}, {name: a, engine: fake}]", "a is defined more than once"),
        (FAKE + "indexes: {m: {model: nope, corpus: [d]}}", "indexes.m.model: there is no model 'nope'"),
        (FAKE + "store: {url: 'http://x'}", "store.url"),
        (FAKE + "stroe: {}", "stroe: there is no such field; did you mean 'store'"),
        (FAKE + "store: {timout_s: 1}", r"store.timout_s: .* did you mean 'timeout_s'"),
        (FAKE + "http: {hosts: [{nam: x}]}", r"http.hosts.0.nam: .* did you mean 'name'"),
        (FAKE + "zebra: 1", "zebra: there is no such field$"),
        (
            "models: [{name: a, engine: fake, price: {perhour: 1}}]",
            r"models.0.fake.price.perhour: .*'per_hour'",
        ),
        ("models: [{name: a, engine: lora, base: b, source: c}]", "models: .*there is no model 'b'"),
    ],
)
def test_a_mistake_names_the_file_and_the_field(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=expected) as refused:
        load_settings(file)
    assert str(file) in str(refused.value)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config file"):
        load_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="larger than"):
        load_settings(write(tmp_path, FAKE + "# " + "x" * 1024 * 1024))


@pytest.mark.parametrize(("keep", "seconds"), [("90m", 5400), ("24h", 86_400), (30, 30)])
def test_how_long_runs_are_kept(tmp_path: Path, keep: object, seconds: float) -> None:
    assert load_settings(write(tmp_path, FAKE + f"runs: {{keep: {keep}}}\n")).runs.keep == seconds
    assert load_settings(write(tmp_path, FAKE)).runs.keep == 86_400


def test_a_wrong_length_of_time_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs\.keep: .*expected a length of time"):
        load_settings(write(tmp_path, FAKE + "runs: {keep: soon}\n"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("quotas: {when_store_is_out: local_share}", 60),
        ("store: {known_keys: 0}", 0),
        ("store: {known_keys: 0}\nquotas: {when_store_is_out: local_share}", 0),
        ("store: {known_keys: 5m}", 300),
    ],
)
def test_how_long_keys_go_on_without_the_store(tmp_path: Path, text: str, seconds: float) -> None:
    assert load_settings(write(tmp_path, FAKE + text)).known_keys_s == seconds


def test_keys_do_not_go_on_for_ever_without_the_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store\.known_keys"):
        load_settings(write(tmp_path, FAKE + "store: {known_keys: 2h}"))


def test_hosts_and_variables_that_graphs_may_use(tmp_path: Path) -> None:
    hosts = 'hosts: [api.example.com, {name: "tickets.internal:8080", allow_private: true}, "[::1]:80"]'
    settings = load_settings(write(tmp_path, FAKE + f"http: {{{hosts}, env: [TOKEN]}}\n"))
    allowed = {"api.example.com": False, "tickets.internal:8080": True, "[::1]:80": False}
    assert settings.http.by_name() == allowed
    known = catalog(settings)
    assert (known.hosts, known.secrets) == (frozenset(allowed), frozenset({"TOKEN"}))
    assert load_settings(write(tmp_path, FAKE)).http.by_name() == {}


@pytest.mark.parametrize(
    "section",
    [
        "http: {hosts: ['https://api.example.com']}",
        "http: {hosts: ['api.example.com/v1']}",
        "http: {hosts: ['*.example.com']}",
        "http: {hosts: ['API.example.com']}",
        "http: {hosts: [{name: a, private: true}]}",
        "http: {env: ['a b']}",
    ],
)
def test_hosts_and_variables_that_are_none(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigError, match=r"http\.(hosts|env)"):
        load_settings(write(tmp_path, FAKE + section))


POOLS = """
node_pools:
  - {name: cpu, cpus: 8, nodes: {min: 1, max: 8}, price_per_hour: 0.41}
  - {name: gpu, cpus: 24, accelerator: {type: L4}, nodes: 2}
"""


def test_models_gateway_and_runner_name_the_nodes_that_they_run_on(tmp_path: Path) -> None:
    text = (
        "models: [{name: tiny, engine: fake, node_pool: gpu, spread: require}]\n"
        "gateway: {node_pool: cpu}\nrunner: {node_pool: cpu}\n" + POOLS
    )
    settings = load_settings(write(tmp_path, text))
    assert {where: placed.node_pool for where, placed in settings.placed()} == {
        "models.tiny": "gpu",
        "gateway": "cpu",
        "runner": "cpu",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FAKE + "gateway: {node_pool: gpu}", "gateway.node_pool: there is no 'gpu'; there are none"),
        (FAKE + "runner: {node_pool: gp}" + POOLS, "runner.node_pool: there is no 'gp'; there are cpu, gpu"),
        (FAKE + "node_pools: [{name: a, cpus: 1}, {name: a, cpus: 1}]", "a is defined more than once"),
        (
            FAKE + "node_pools: [{name: a, cpus: 1, head: true}, {name: b, cpus: 1, head: true}]",
            "there is one head, but a and b say",
        ),
    ],
)
def test_node_pools_that_do_not_agree_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_settings(write(tmp_path, text))
