"""Deploying onto what runs, refused before anything is touched. What it does is in the end-to-end tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from cluster.live import Observed
from cluster.topology import HEAD_RESOURCE, Node
from runtime.store.client import Store
from serve_apps.audit.model import PLATFORM, Entry
from serve_apps.cli import processes, up
from serve_apps.cli.demo import DEMO_TENANT, demo_key
from serve_apps.cli.operator import operating
from serve_apps.cli.up import StartFailed, System, deploy
from serve_apps.gateway.keys import KeyRecord
from serve_apps.settings import Settings, load_settings

CONFIG = "models: [{name: tiny, engine: fake}]\n"


@pytest.fixture(autouse=True)
def empty_store(valkey_url: str) -> None:
    """Its logs are under the pepper of another test."""

    async def empty() -> None:
        store = Store.connect(valkey_url, timeout_s=5)
        await store.execute("FLUSHALL")
        await store.close()

    asyncio.run(empty())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIG, "clustergraph up"),
        (CONFIG + "graphs: [none.yaml]\n", "none.yaml"),
        ("models: []\n", "models"),
    ],
)
def test_what_cannot_be_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(processes, "listening_on", lambda _: {})
    file = tmp_path / "deploy.yaml"
    file.write_text(text)
    console = Console(record=True, width=200)
    assert deploy(file, console) == 1
    assert said in console.export_text()


class Started:
    """What `processes.start` gives."""

    def __init__(self, status: int) -> None:
        self._status = status

    def wait(self) -> int:
        return self._status


@pytest.mark.parametrize(("status", "outcomes"), [(0, ["allowed"]), (1, ["failed", "allowed"])])
def test_a_deploy_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str, status: int, outcomes: list[str]
) -> None:
    monkeypatch.setattr(processes, "listening_on", lambda ports: dict.fromkeys(ports, "ray"))
    monkeypatch.setattr(processes, "start", lambda *_: Started(status))
    file = tmp_path / "deploy.yaml"
    file.write_text(f"{CONFIG}data_dir: .\nstore: {{url: '{valkey_url}'}}\n")
    settings = load_settings(file)
    before = len(asyncio.run(_platform_log(settings)))
    assert deploy(file, Console(record=True, width=200)) == status
    entries = asyncio.run(_platform_log(settings))[: len(outcomes)]
    assert len(asyncio.run(_platform_log(settings))) == before + len(outcomes)
    assert [entry.outcome for entry in entries] == outcomes
    assert {(entry.actor, entry.action, entry.object) for entry in entries} == {
        ("operator", "config.deploy", "config/deploy.yaml")
    }
    assert entries[-1].after


def test_nothing_is_deployed_that_cannot_be_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "listening_on", lambda ports: dict.fromkeys(ports, "ray"))
    monkeypatch.setattr(processes, "start", lambda *_: pytest.fail("it was deployed"))
    file = tmp_path / "deploy.yaml"
    file.write_text(f"{CONFIG}data_dir: .\nstore: {{url: 'unix://{tmp_path}/none.sock'}}\n")
    console = Console(record=True, width=300)
    assert deploy(file, console) == 1
    assert "cannot be audited" in console.export_text()


def test_the_demo_key_is_audited_once(tmp_path: Path, valkey_url: str) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(f"{CONFIG}data_dir: .\nstore: {{url: '{valkey_url}'}}\n")
    settings = load_settings(file)
    key = demo_key(settings)
    assert demo_key(settings) == key

    async def look() -> tuple[list[Entry], KeyRecord]:
        async with operating(settings) as (keys, audit):
            return await audit.newest(DEMO_TENANT, 10), await keys.authenticate(key)

    entries, record = asyncio.run(look())
    assert [(entry.action, entry.object) for entry in entries] == [("key.create", f"key/{record.key_id}")]
    assert (record.role, record.tenant) == ("owner", DEMO_TENANT)


async def _platform_log(settings: Settings) -> list[Entry]:
    async with operating(settings) as (_, audit):
        return await audit.newest(PLATFORM, 100)


def test_one_machine_cannot_be_several_pools(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(CONFIG + "node_pools: [{name: a, cpus: 1}, {name: b, cpus: 1}]\n")
    with pytest.raises(StartFailed, match=r"names 2 node pools \(a, b\), and this is one machine"):
        System(file, port=8000, console=Console()).preflight()


class Named:
    """A process, as far as its name goes."""

    def __init__(self, name: str, pid: int) -> None:
        self._name = name
        self.pid = pid

    def name(self) -> str:
        return self._name


def test_nodes_end_before_their_control_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("gcs_server", "haproxy", "raylet", "ray::gateway", "python")
    found = [Named(name, pid) for pid, name in enumerate(names)]
    ended: list[list[str]] = []

    def end(wave: list[Named], *, grace_s: float) -> list[Named]:
        ended.append([process.name() for process in wave])
        return wave[:1]

    monkeypatch.setattr(processes, "of_system", lambda _: found[:3])
    monkeypatch.setattr(processes, "descendants", lambda: found[1:])
    monkeypatch.setattr(processes, "end", end)
    left = up.end_all(tmp_path)
    assert ended == [["raylet"], ["haproxy", "ray::gateway", "python"], ["gcs_server"]]
    assert [process.name() for process in left] == ["raylet", "haproxy", "gcs_server"]


ON_GPU = "models: [{name: big, engine: vllm, source: x/y, accelerator_type: L4}]\n"


def test_accelerators_that_this_machine_has_not_are_told_before_anything_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"CPU": 4.0, HEAD_RESOURCE: 1.0}
    monkeypatch.setattr(up, "observe", lambda *_: Observed((Node("here", head),), ()))
    file = tmp_path / "deploy.yaml"
    file.write_text(ON_GPU)
    with pytest.raises(StartFailed, match=r"models.big: it needs accelerators of type L4; .* has none"):
        System(file, port=8000, console=Console())._check_accelerators()
    gpu = head | {"GPU": 1.0, "accelerator_type:L4": 1.0}
    monkeypatch.setattr(up, "observe", lambda *_: Observed((Node("here", gpu),), ()))
    System(file, port=8000, console=Console())._check_accelerators()
    monkeypatch.setattr(up, "observe", None)
    file.write_text(CONFIG)
    System(file, port=8000, console=Console())._check_accelerators()  # nobody is asked where none is needed


def test_ray_is_told_of_as_many_cpus_as_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("models: [{name: tiny, engine: fake, num_cpus: 3, replicas: 2}]\n")
    system = System(file, port=8000, console=Console())
    assert up._cpus_needed(system.settings, system.plans) == 6 + 0.25 + 0.5, "and one more gateway and runner"
