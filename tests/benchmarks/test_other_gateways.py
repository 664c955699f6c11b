"""Gateways of others: measured where they answer well, told of where they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import other_gateways
from benchmarks.other_gateways import GATEWAYS, Gateway, running
from benchmarks.scenario import HttpRequest
from benchmarks.scenarios.gateway import GatewayScenario

SAYS_ITS_PORT = [sys.executable, "-m", "benchmarks.mock_upstream", "--port", "0"]


def ask(port: int, prefix: str, model: str, headers: object) -> dict[str, HttpRequest]:
    def request(text: str) -> HttpRequest:
        return HttpRequest("127.0.0.1", port, "/v1/chat/completions", b"{}", {}, text)

    return {"chat": request("word19"), "stream": request("no such text")}


def gateway(command: list[str], needs: Path) -> Gateway:
    return Gateway("other", "another one", needs, lambda _, __: command, picks_its_port=True)


def test_loads_that_it_cannot_answer_are_left_out_and_told() -> None:
    with running(gateway(SAYS_ITS_PORT, Path(sys.executable)), 0, 0, ask) as arm:
        assert list(arm.requests) == ["chat"]
        assert arm.describe.startswith("another one; not measured under stream: it answered 200:")
        assert arm.of_others
        [server] = arm.processes()
        assert server.is_running()
    assert not server.is_running()


def test_one_that_is_not_installed_is_an_arm_without_requests(tmp_path: Path) -> None:
    with running(gateway(SAYS_ITS_PORT, tmp_path / "none"), 0, 0, ask) as arm:
        assert (arm.requests, arm.processes()) == ({}, [])
        assert "not measured, for it is not installed: run scripts/peers" in arm.describe


def test_one_that_ends_at_once_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with running(gateway(command, Path(sys.executable)), 0, 0, ask) as arm:
        assert arm.requests == {}
        assert "no such option" in arm.describe


@pytest.mark.parametrize("name", GATEWAYS)
def test_every_one_is_an_arm_of_the_scenario_and_is_started_on_its_port(name: str) -> None:
    assert name in GatewayScenario.arm_names
    command = GATEWAYS[name].command(18090, 18081)
    assert GATEWAYS[name].picks_its_port or any("18090" in word for word in command)
    assert str(other_gateways.VENV) in str(GATEWAYS[name].needs)
