"""What the application is composed of."""

from __future__ import annotations

from pathlib import Path

from serve_apps.app import BuildArguments, build

CONFIG = """
models: [{name: tiny, engine: fake}]
gateway: {max_timeout_s: 90}
runner: {replicas: 3}
tenants: {acme: {weight: 2.5}}
"""


def test_what_is_replaced_works_on_for_as_long_as_a_request_may_take(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(CONFIG)
    gateway = build(BuildArguments(config=file))._bound_deployment
    config = gateway._deployment_config
    assert gateway.name == "gateway"
    assert config.graceful_shutdown_timeout_s == 90
    assert config.max_surge_percent > 0, "the new replica runs before the old one ends"


def test_models_know_the_weights_of_tenants(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(CONFIG)
    gateway = build(BuildArguments(config=file))._bound_deployment
    [model] = gateway.init_args[1].values()
    assert model._bound_deployment._deployment_config.user_config == {
        "adapters": {},
        "weights": {"acme": 2.5},
    }
