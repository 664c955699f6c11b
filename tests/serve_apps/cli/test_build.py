"""`clustergraph build`: what it writes is what Serve and KubeRay read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner, Result

from cluster.errors import ConfigError
from serve_apps.cli.main import app
from tests.deploy.kuberay import problems

CONFIGS = Path(__file__).parents[3] / "serve_apps" / "configs"
POOLS = """
store: {url: 'redis://store:6379/0'}
node_pools: [{name: cpu, cpus: 8, memory_gib: 32, nodes: {min: 1, max: 8}}]
"""


def build(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


def documents(*arguments: object) -> list[dict[str, Any]]:
    result = build(*arguments)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def test_without_more_it_is_a_config_of_serve() -> None:
    (written,) = documents("--config", CONFIGS / "fake.yaml")
    config = ServeDeploySchema.model_validate(written)
    (application,) = config.applications
    assert application.args["config"] == str(CONFIGS / "fake.yaml")
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.1", 8000)


def test_it_names_the_config_where_the_head_has_it() -> None:
    (written,) = documents(
        *("--config", CONFIGS / "fake.yaml", "--config-on-head", "/srv/deploy.yaml"),
        *("--host", "10.0.0.7", "--port", 8443),
    )
    assert written["applications"][0]["args"]["config"] == "/srv/deploy.yaml"
    assert written["http_options"] == {"host": "10.0.0.7", "port": 8443}


def test_for_kubernetes_the_graphs_go_along(tmp_path: Path) -> None:
    config = yaml.safe_load((CONFIGS / "fake.yaml").read_text()) | yaml.safe_load(POOLS)
    base = CONFIGS.resolve()
    for field in ("graphs", "prompts"):
        config[field] = [str((base / path).resolve().relative_to(base.parents[1])) for path in config[field]]
    config["indexes"]["manual"]["corpus"] = ["docs"]
    (tmp_path / "graphs").symlink_to(base.parents[1] / "graphs")
    (tmp_path / "docs").symlink_to(base.parents[1] / "docs")
    file, output = tmp_path / "deploy.yaml", tmp_path / "rayservice.yaml"
    file.write_text(yaml.safe_dump(config))
    result = build("--config", file, "--kuberay", "-o", output, "--cpu-image", "example.com/cpu")
    assert result.exit_code == 0, result.output
    secret, service = yaml.safe_load_all(output.read_text())
    assert problems(service) == []
    assert len([name for name in secret["stringData"] if name.startswith("graphs_2f_")]) == 9
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["image"] == "example.com/cpu"


@pytest.mark.parametrize(
    ("text", "arguments", "named"),
    [
        ("models: []", [], "models"),
        ("models: [{name: tiny, engine: fake}]\ngraphs: [none.yaml]", [], "none.yaml"),
        ("models: [{name: tiny, engine: fake}]", ["--kuberay"], r"store\.url"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    tmp_path: Path, text: str, arguments: list[str], named: str
) -> None:
    file, output = tmp_path / "deploy.yaml", tmp_path / "out.yaml"
    file.write_text(text)
    result = build("--config", file, "-o", output, *arguments)
    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match=named):
        raise result.exception
    assert not output.exists()
