"""What `clustergraph build` writes is deployed by `serve run`, on a Ray of its own, and answers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.settings import Settings, load_settings
from tests.e2e.system import ANSWER_TIMEOUT_S, COMMAND, REPOSITORY, write_config

PORT = 8077
READY_TIMEOUT_S = 900.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}
SERVE = str(Path(sys.executable).parent / "serve")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config("fake", tmp_path, gateway={"replicas": 1})


@pytest.fixture
def deployed(config: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of the gateway, once it says that all is ready."""
    file = tmp_path / "serve.yaml"
    options = ["--config", str(config), "-o", str(file), "--port", str(PORT)]
    subprocess.run([*COMMAND, "build", *options], cwd=REPOSITORY, check=True, timeout=400, env=ENVIRONMENT)
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [SERVE, "run", "--address", "local", str(file)],
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=ENVIRONMENT,
            # Tests that a shell runs in its background are born deaf to it, and so is what they start.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
    started: list[psutil.Process] = []
    try:
        _wait_until_ready(process, tmp_path / "serve.log")
        started = psutil.Process(process.pid).children(recursive=True)
        yield f"http://127.0.0.1:{PORT}"
        process.send_signal(signal.SIGINT)
        process.wait(timeout=ANSWER_TIMEOUT_S)
    finally:
        for each in [*started, psutil.Process(process.pid)] if process.poll() is None else started:
            if each.is_running():
                each.kill()
        process.wait(timeout=300)
        EmbeddedValkey(load_settings(config).store_dir).stop()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/readyz", timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail("\n".join(log.read_text(errors="replace").splitlines()[-40:]))


def _key(settings: Settings) -> str:
    async def make() -> str:
        store = Store.connect(EmbeddedValkey(settings.store_dir).url, timeout_s=10)
        keys = KeyStore(store, load_or_create_pepper(settings.pepper_file))
        token, _ = await keys.create("acme", "test")
        await store.close()
        return token

    return asyncio.run(make())


def test_what_build_writes_runs(deployed: str, config: Path) -> None:
    headers = {"authorization": f"Bearer {_key(load_settings(config))}"}
    with httpx.Client(base_url=deployed, headers=headers, timeout=ANSWER_TIMEOUT_S) as client:
        chat = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
        answer = client.post("/v1/chat/completions", json=chat)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."
        run = client.post("/v1/graphs/support-rag/runs", json={"inputs": {"question": "What is a key?"}})
        assert run.status_code == 200, run.text
