"""An application whose replicas come and go is deployed as by a config file of Serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from serve_apps import redeploy

FIXED = "models: [{name: tiny, engine: fake}]\n"
SCALED = "models: [{name: tiny, engine: fake, replicas: {min: 0, max: 4}}]\n"


class Client:
    """A Serve that is told configs, and an application that becomes what the test says."""

    http_config = SimpleNamespace(host=None, port=8123)

    def __init__(self, becomes: Sequence[ApplicationStatus]) -> None:
        self.told: list[ServeDeploySchema] = []
        self._becomes = iter(becomes)

    def deploy_apps(self, config: ServeDeploySchema) -> None:
        self.told.append(config)

    def status(self) -> Any:
        application = SimpleNamespace(status=next(self._becomes), message="no room for it")
        return SimpleNamespace(applications={redeploy.NAME: application})


def use(monkeypatch: pytest.MonkeyPatch, *becomes: ApplicationStatus) -> Client:
    client = Client(becomes)
    monkeypatch.setattr(redeploy.serve_context, "_get_global_client", lambda: client)
    monkeypatch.setattr(redeploy.serve, "status", client.status)
    monkeypatch.setattr(redeploy, "LOOK_EVERY_S", 0.0)
    return client


def write(folder: Path, text: str) -> Path:
    file = folder / "deploy.yaml"
    file.write_text(text)
    return file


def test_the_policy_comes_with_it_and_it_is_built_anew_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = use(monkeypatch, ApplicationStatus.DEPLOYING, *[ApplicationStatus.RUNNING] * 2)
    for _ in range(2):
        redeploy.deploy(write(tmp_path, SCALED))
    first, second = (config.applications[0] for config in client.told)
    assert first.name == "default"
    assert set(first.autoscaling_policy["policy_kwargs"]["pools"]) == {"model-tiny"}
    assert first.args["config"] == second.args["config"] == str(tmp_path / "deploy.yaml")
    assert first.args["revision"] != second.args["revision"]


def test_what_cannot_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, ApplicationStatus.DEPLOYING, ApplicationStatus.DEPLOY_FAILED)
    with pytest.raises(RuntimeError, match="no room for it"):
        redeploy.deploy(write(tmp_path, SCALED))


def test_without_a_range_it_is_run_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, ran = use(monkeypatch), []
    monkeypatch.setattr(redeploy.serve, "run", lambda application, name: ran.append((application, name)))
    redeploy.deploy(write(tmp_path, FIXED))
    assert client.told == []
    assert [name for _, name in ran] == ["default"]
