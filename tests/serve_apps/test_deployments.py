"""What the deployments are built of."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from runtime.cache.results import Results
from runtime.mcp.client import McpServer
from serve_apps.deployments import claims_of, mcp_servers
from serve_apps.settings import Settings, load_settings

FAKE = "models: [{name: tiny, engine: fake}]\n"


def settings(folder: Path, text: str) -> Settings:
    file = folder / "deploy.yaml"
    file.write_text(FAKE + text)
    return load_settings(file)


def test_a_client_for_each_mcp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", "s3cret")
    text = "mcp: {tickets: {url: 'https://mcp.example.com/mcp', token_env: TICKETS_TOKEN}}\n"
    servers = mcp_servers(settings(tmp_path, text))
    assert {name: type(server) for name, server in servers.items()} == {"tickets": McpServer}
    assert mcp_servers(settings(tmp_path, "")) == {}


def test_a_secret_that_is_not_set_stops_the_start(tmp_path: Path) -> None:
    text = "mcp: {files: {command: [serve], env: [NO_SUCH_VARIABLE]}}\n"
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE is not set"):
        mcp_servers(settings(tmp_path, text))


@pytest.mark.parametrize(
    ("runner", "several"),
    [
        ("", False),
        ("runner: {replicas: 1}\n", False),
        ("runner: {replicas: 2}\n", True),
        ("runner: {replicas: {min: 0, max: 3}}\n", True),
    ],
)
def test_runners_claim_results_where_there_may_be_several(tmp_path: Path, runner: str, several: bool) -> None:
    assert (claims_of(settings(tmp_path, runner), Results()) is not None) == several
