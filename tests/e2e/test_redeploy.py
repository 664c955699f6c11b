"""A change is deployed onto the running system, and no call fails meanwhile."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.system import ANSWER_TIMEOUT_S, COMMAND, REPOSITORY, RunningSystem

RUNS = "/v1/graphs/support-rag/runs"


def _deploy(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "deploy", "--config", str(config)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def changed(system: RunningSystem) -> Iterator[Path]:
    """The system's config with another version of its first graph; at the end the old one is there again."""
    config = yaml.safe_load(system.config.read_text())
    pipeline = yaml.safe_load(Path(config["graphs"][0]).read_text())
    pipeline["metadata"]["version"] = "99.0.0"
    graph = system.config.with_name("changed-graph.yaml")
    graph.write_text(yaml.safe_dump(pipeline))
    config["graphs"][0] = str(graph)
    file = system.config.with_name("changed.yaml")
    file.write_text(yaml.safe_dump(config))
    yield file
    assert _deploy(system.config).returncode == 0


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_a_new_version_of_a_graph_loses_no_call(system: RunningSystem, changed: Path) -> None:
    key, _ = system.key()
    over = threading.Event()
    versions: list[str] = []
    failed: list[str] = []

    def call() -> None:
        with httpx.Client(
            base_url=system.url, headers={"authorization": f"Bearer {key}"}, timeout=ANSWER_TIMEOUT_S
        ) as client:
            while not (over.is_set() and versions[-1:] == ["99.0.0"]) and not failed:
                answer = client.post(RUNS, json={"inputs": {"question": "What is a quota?"}})
                if answer.status_code == 200:
                    versions.append(answer.json()["version"])
                else:
                    failed.append(answer.text)

    caller = threading.Thread(target=call)
    caller.start()
    done = _deploy(changed)
    over.set()
    caller.join(timeout=ANSWER_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert failed == []
    assert versions[-1] == "99.0.0"
    assert len(set(versions)) == 2, "calls went on while it was deployed"
