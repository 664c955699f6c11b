"""What hosts the application, from its deployment to its end, without Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from serve_apps import hosting

ARGUMENTS = ("deploy.yaml", "127.0.0.1:6380")


class Gateways:
    """The handle of all gateways."""

    def __init__(self, done: list[Any], error: Exception | None = None) -> None:
        self._done = done
        self._error = error

    def broadcast(self, method: str, *arguments: object) -> Gateways:
        self._done.append((method, *arguments))
        return self

    async def results_async(self, *, timeout_s: float) -> list[int]:
        assert timeout_s > hosting.GRACE_S
        if self._error is not None:
            raise self._error
        return [1, 0]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done, in its order; it is interrupted as soon as it runs."""
    seen: list[Any] = []

    async def shut_down() -> None:
        seen.append("shut down")

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hosting, "ray", SimpleNamespace(init=lambda **_: None))
    serve = SimpleNamespace(get_deployment_handle=lambda *_: Gateways(seen), shutdown_async=shut_down)
    monkeypatch.setattr(hosting, "serve", serve)
    monkeypatch.setattr(hosting, "signal", SimpleNamespace(pause=interrupted))
    monkeypatch.setattr(hosting, "deploy", seen.append)
    return seen


def test_gateways_stop_before_serve_is_shut_down(done: list[Any]) -> None:
    assert hosting.main(*ARGUMENTS) == 0
    assert done == [Path("deploy.yaml"), ("stop", hosting.GRACE_S), "shut down"]


@pytest.mark.parametrize("error", [TimeoutError(), RayServeException("gone")])
def test_serve_is_shut_down_whatever_gateways_say(
    done: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(hosting.serve, "get_deployment_handle", lambda *_: Gateways(done, error))
    assert hosting.main(*ARGUMENTS) == 0
    assert done[-1] == "shut down"


def test_what_cannot_start_is_taken_down(done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(hosting, "deploy", fails)
    assert hosting.main(*ARGUMENTS) == 1
    assert done == ["shut down"]
