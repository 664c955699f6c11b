"""`clustergraph run`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from serve_apps.cli.calls import CallFailed
from serve_apps.cli.main import app
from tests.serve_apps.cli.conftest import FakeGateway
from tests.serve_apps.cli.test_runs import ACCEPTED, ANSWER


def run(gateway: FakeGateway, *arguments: str) -> str:
    environment = {"CLUSTERGRAPH_URL": gateway.url, "CLUSTERGRAPH_KEY": "secret"}
    result = CliRunner(env=environment).invoke(app, ["run", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_that_is_waited_for_prints_its_outputs(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answer("POST /v1/graphs/rag/runs", ANSWER)
    file = tmp_path / "inputs.json"
    file.write_text('{"question": "why", "top_k": 1}')
    shown = run(gateway, "rag", "--inputs", str(file), "-i", "top_k=3", "--timeout", "9")
    assert '"text": "so"' in shown
    assert "run r-2: 1.00 s, 5 tokens" in shown
    headers, body = gateway.sent[-1]
    assert msgspec.json.decode(body) == {"inputs": {"question": "why", "top_k": 3}}
    assert headers["x-request-timeout"] == "9"


def test_a_run_in_the_background_prints_its_id(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/graphs/rag/runs", ACCEPTED, 202)
    shown = run(
        gateway,
        *["rag", "-i", "question=why", "--background", "--durability", "step", "--token-budget", "50"],
    )
    assert shown.splitlines()[0] == "r-2"
    assert msgspec.json.decode(gateway.sent[-1][1]) == {
        "inputs": {"question": "why"},
        "background": True,
        "durability": "step",
        "token_budget": 50,
    }


def test_a_run_that_was_suspended_says_so(gateway: FakeGateway) -> None:
    gateway.answer("POST /v1/graphs/rag/runs", {**ACCEPTED, "status": "suspended"}, 202)
    assert "waits for people" in run(gateway, "rag")


@pytest.mark.parametrize("content", ["no JSON", "[]"])
def test_inputs_that_are_none(gateway: FakeGateway, tmp_path: Path, content: str) -> None:
    file = tmp_path / "inputs.json"
    file.write_text(content)
    with pytest.raises(CallFailed, match=r"inputs\.json"):
        run(gateway, "rag", "--inputs", str(file))
    with pytest.raises(CallFailed, match="NAME=VALUE"):
        run(gateway, "rag", "-i", "question")
