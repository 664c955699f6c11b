from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.live import Deployed, Observed
from cluster.topology import Node
from serve_apps.cli import observing
from serve_apps.cli.observing import GCS_PORT, NotObserved, observe

OBSERVED = Observed((Node("n", {"CPU": 2.0}),), (Deployed("gateway", 1),))


def answering(monkeypatch: pytest.MonkeyPatch, status: int, out: str, err: str) -> list[Any]:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append((command, options["env"]))
        return subprocess.CompletedProcess(command, status, out, err)

    monkeypatch.setattr(observing.subprocess, "run", run)
    return asked


def test_the_cluster_of_this_machine_is_asked_with_its_own_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, 0, msgspec.json.encode(OBSERVED).decode(), "")
    assert observe(tmp_path, None) == OBSERVED
    ((command, environment),) = asked
    assert command == [sys.executable, "-m", "serve_apps.observe", f"127.0.0.1:{GCS_PORT}"]
    assert environment["RAY_AUTH_TOKEN_PATH"].startswith(str(tmp_path))


def test_another_cluster_is_asked_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    asked = answering(monkeypatch, 0, msgspec.json.encode(OBSERVED).decode(), "")
    observe(tmp_path, "10.0.0.1:6379")
    ((command, environment),) = asked
    assert command[-1] == "10.0.0.1:6379"
    assert "RAY_AUTH_TOKEN_PATH" not in environment


def test_why_nobody_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 1, "", "no Ray answers at x")
    with pytest.raises(NotObserved, match="could not be asked: no Ray answers at x"):
        observe(tmp_path, "x")

    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("ray", 1)

    monkeypatch.setattr(observing.subprocess, "run", slow)
    with pytest.raises(NotObserved, match="did not answer within"):
        observe(tmp_path, "x")
