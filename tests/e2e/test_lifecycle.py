"""What a second start finds when the first still runs, or died without cleaning up."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest

from tests.e2e.system import COMMAND, PORT, REPOSITORY, RunningSystem, write_config

LOOPBACK = {"127.0.0.1", "::1"}


def _command(system: RunningSystem, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, name, "--config", str(system.config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_a_second_start_names_what_runs(
    system: RunningSystem, tmp_path_factory: pytest.TempPathFactory
) -> None:
    same = _command(system, "up")
    assert same.returncode == 1
    assert "still running" in same.stdout
    assert "clustergraph down" in same.stdout
    other = RunningSystem(write_config("fake", tmp_path_factory.mktemp("other")), "fake")
    refused = _command(other, "up")
    assert refused.returncode == 1
    assert f"port {PORT}: " in refused.stdout


@pytest.mark.engine
@pytest.mark.parametrize("system", ["quickstart"], indirect=True)
def test_before_the_model_is_ready_a_chat_is_told_what_it_waits_for_and_when_to_come_back(
    system: RunningSystem,
) -> None:
    assert system.early_chats
    for reply in system.early_chats[:-1]:  # the last may have met a model that had just become ready
        assert reply.status_code == 503, reply.text
        assert int(reply.headers["retry-after"]) > 0
        assert "model smollm2" in reply.json()["error"]["message"]


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_every_door_is_on_loopback_or_asks_for_the_token(system: RunningSystem) -> None:
    ours = {process.pid: " ".join(process.cmdline()) for process in system.processes()}
    doors = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port, ours[connection.pid])
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in ours
    }
    assert {port for _, port, _ in doors} > {PORT, 6380, 8265, 9101, 8404}
    # Ray Serve binds the port on which a replica takes calls of other replicas to every interface, always.
    open_doors = [(port, owner) for ip, port, owner in doors if ip not in LOOPBACK]
    assert all(owner.startswith("ray::") for _, owner in open_doors), open_doors
    for port, owner in open_doors:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as unauthenticated:
                call(b"", timeout=60)
        assert unauthenticated.value.code() == grpc.StatusCode.UNAUTHENTICATED, owner
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/", timeout=60)
    assert refused.value.code in (401, 403)
    refused.value.close()


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_secrets_are_their_owners_alone_and_in_no_log(system: RunningSystem) -> None:
    secrets = list((system.settings.data_dir / "secrets").iterdir())
    assert {file.name for file in secrets} == {"pepper", "ray-token", "demo-key"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in secrets)
    logs = (system.settings.data_dir / "logs").rglob("*")
    assert not any(system.demo_key in log.read_text(errors="replace") for log in logs if log.is_file())


@pytest.mark.parametrize("system", ["fake-once"], indirect=True)
def test_after_a_kill_the_leftovers_are_named_and_down_ends_them(system: RunningSystem) -> None:
    system.kill()
    again = _command(system, "up")
    assert again.returncode == 1
    assert "still running" in again.stdout
    ended = _command(system, "down")
    assert ended.returncode == 0, ended.stdout
    assert system.processes() == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{system.url}/healthz", timeout=60)


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_health_and_readiness_are_open_to_probes(system: RunningSystem) -> None:
    with urllib.request.urlopen(f"{system.url}/readyz", timeout=60) as reply:
        assert reply.status == 200
        assert set(json.load(reply)["parts"].values()) == {"ready"}


@pytest.mark.engine
@pytest.mark.parametrize("system", ["quickstart"], indirect=True)
def test_only_the_engines_processes_hold_an_engine(system: RunningSystem) -> None:
    holders = {" ".join(process.cmdline()) for process in system.processes() if _maps(process, "libtorch")}
    assert holders
    assert all("model-smollm2" in title or title.startswith("VLLM::") for title in holders), holders


def _maps(process: psutil.Process, library: str) -> bool:
    """Whether the process has loaded the library."""
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
