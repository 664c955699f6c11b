"""A whole system, started with the command that people type, for tests to drive from outside."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import yaml
from openai import OpenAI

from cluster.models import prepare
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.cli.environment import system_environment
from serve_apps.cli.processes import of_system
from serve_apps.gateway.callers import Role
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyRecord, KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import QuotaLedger, Totals
from serve_apps.settings import Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
PORT = 8000
READY_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 1200.0
"""Of a call, on the real engine of a machine that has a tenth of its speed for minutes: what takes longer
hangs."""
SETTLED_WITHIN_S = 300.0
AT_LENGTH = "at great length"
"""Scripted engines give a long answer to a question that says so."""
ON_AND_ON = "Count to one million, in words"
"""Asked for an answer that takes longer than a system has to stop, of scripted engines and of real ones."""
COMMAND = [str(Path(sys.executable).parent / "clustergraph")]


class RunningSystem:
    """What a test may know of it: its URL, and what an operator could look at."""

    def __init__(self, config: Path, kind: str) -> None:
        self.kind = kind
        self.config = config
        self.settings: Settings = load_settings(config)
        self.url = f"http://127.0.0.1:{PORT}"
        self.output: list[str] = []
        self.demo_key = ""
        self.early_chats: list[httpx.Response] = []
        """Answers to chats that came before the model was ready."""
        self._stop_probing = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "up", "--config", str(self.config), "--port", str(PORT)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        prober = threading.Thread(target=self._probe_while_starting)
        prober.start()
        watchdog = threading.Timer(READY_TIMEOUT_S, self._process.kill)
        watchdog.start()
        assert self._process.stdout is not None
        for line in self._process.stdout:  # ends when the process does, or is killed by the watchdog
            self.output.append(line)
            if match := re.search(r"Key\s+(cgh_\S+)", line):
                self.demo_key = match.group(1)
            if "Ctrl-C stops everything" in line:
                break
        watchdog.cancel()
        self._stop_probing.set()
        prober.join()
        if not self.demo_key:
            self._process.stdout.close()
            self._process.wait(timeout=400)
        assert self.demo_key, f"the system did not start:\n{''.join(self.output)}\n{self.log_tail()}"

    def _probe_while_starting(self) -> None:
        """Asks for a chat as soon as the gateway could know us, and until the model answers."""
        key = ""
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self._stop_probing.wait(0.2):
                try:
                    parts = client.get("/readyz").json()["parts"]
                    if parts["store"] != "ready" or parts["model smollm2"] == "ready":
                        continue
                    key = key or self.key()[0]
                    chat = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}]}
                    headers = {"authorization": f"Bearer {key}"}
                    self.early_chats.append(client.post("/v1/chat/completions", json=chat, headers=headers))
                except (httpx.TransportError, ValueError, KeyError):
                    continue  # nobody there yet, or HAProxy alone

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def interrupt(self) -> int:
        """Ctrl-C, and the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=400)
        self.output.append(rest)
        return self._process.returncode

    def kill(self) -> None:
        """kill -9 of the command alone: what it started lives on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=400)
        assert self._process.stdout is not None
        self._process.stdout.close()  # what it started holds the other end

    def log_tail(self) -> str:
        log = self.settings.data_dir / "logs" / "serve.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""

    def processes(self) -> list[psutil.Process]:
        return of_system(self.settings.data_dir)

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.demo_key, max_retries=0, timeout=ANSWER_TIMEOUT_S
        )

    def key(
        self, *, limits: Limits | None = None, models: list[str] | None = None, role: Role = "service"
    ) -> tuple[str, KeyRecord]:
        """A key of a tenant of its own."""

        async def make() -> tuple[str, KeyRecord]:
            async with self._store() as store:
                keys = KeyStore(store, load_or_create_pepper(self.settings.pepper_file))
                tenant = f"tenant-{time.monotonic_ns()}"
                return await keys.create(
                    tenant, "test", role=role, allowance=Allowance(limits or Limits()), models=models
                )

        return asyncio.run(make())

    def settled(self, record: KeyRecord) -> Totals:
        """The key's ledger once no call is open any more: settlement follows the reply, off its path."""

        async def read() -> Totals:
            async with self._store() as store, asyncio.timeout(SETTLED_WITHIN_S):
                ledger = QuotaLedger(store)
                while (totals := await ledger.totals(record.tenant, record.key_id)).open:
                    await asyncio.sleep(0.02)
                return totals

        return asyncio.run(read())

    def environment(self) -> dict[str, str]:
        """For processes that join its Ray cluster."""
        return system_environment(self.settings.data_dir, os.environ)

    def _store(self) -> _OpenStore:
        url = self.settings.store.url or f"unix://{self.settings.store_dir / 'valkey.sock'}"
        return _OpenStore(url)


@contextmanager
def _call_in_flight(system: RunningSystem) -> Iterator[list[str]]:
    """A call that lasts for longer than the block; what it was told, after that."""
    events: list[str] = []
    begun = threading.Event()
    key, _ = system.key()
    model = next(spec.name for spec in system.settings.models if spec.task == "generate")
    body = {"model": model, "messages": [{"role": "user", "content": ON_AND_ON}]}
    headers = {"authorization": f"Bearer {key}"}

    def call() -> None:
        with httpx.stream(
            "POST",
            f"{system.url}/v1/chat/completions",
            json=body | {"stream": True, "max_tokens": 1500, "ignore_eos": True},
            headers=headers,
            timeout=ANSWER_TIMEOUT_S,
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    events.append(line)
                    begun.set()
        begun.set()

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(ANSWER_TIMEOUT_S)
    yield events
    caller.join(ANSWER_TIMEOUT_S)
    assert not caller.is_alive()


class _OpenStore:
    def __init__(self, url: str) -> None:
        self._store = Store.connect(url, timeout_s=10)

    async def __aenter__(self) -> Store:
        return self._store

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


def write_config(kind: str, folder: Path, *, token_s: float | None = None, **changes: object) -> Path:
    """The repository's config of that kind, on a data directory of its own. `token_s`: between the tokens of
    a long answer of scripted engines, where it is not as between those of others."""
    source = REPOSITORY / "serve_apps" / "configs" / f"{kind}.yaml"
    config = yaml.safe_load(source.read_text())
    base = source.parent
    config["data_dir"] = str(folder / "data")
    # Engines, gateways, clients and store share a few cores here, and one of them may wait for a core for
    # longer than the default 0.1 s: that is to show as latency, not as a refusal.
    config["store"] = {"timeout_s": 5}
    for files in ("graphs", "prompts"):
        config[files] = [str((base / path).resolve()) for path in config[files]]
    for index in config["indexes"].values():
        index["corpus"] = [str((base / path).resolve()) for path in index["corpus"]]
    config["gateway"] = config.get("gateway", {}) | {"default_timeout_s": ANSWER_TIMEOUT_S}
    config.update(changes)
    for model in config["models"]:
        if rules := model.get("script", {}).get("rules"):
            rules.append({"contains": AT_LENGTH, "reply": "so " * 300, "token_s": token_s})
            rules.append({"contains": ON_AND_ON, "reply": "on " * 1500})
        if str(model.get("source", "")).startswith("bundled/"):
            _link_model(model["source"], folder / "data")
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def _link_model(source: str, data_dir: Path) -> None:
    """Prepared once for the repository, not once for each test run."""
    prepared = prepare(source, REPOSITORY / ".data")
    link = data_dir / "models" / prepared.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(prepared)


@contextmanager
def running(
    kind: str, folder: Path, *, token_s: float | None = None, **changes: object
) -> Iterator[RunningSystem]:
    """A started system; on the way out it is interrupted, and nothing of it may be left."""
    system = RunningSystem(write_config(kind, folder, token_s=token_s, **changes), kind)
    try:
        system.start()
        yield system
        if system.alive:
            with _call_in_flight(system) as events:
                status = system.interrupt()
            assert status == 0, f"exit status {status}\n{system.output[-1]}"
            assert "it did not end" not in system.output[-1], system.output[-1]
            assert '"code":"stopping"' in events[-1], events[-3:]
        assert [process.cmdline() for process in system.processes()] == []
    finally:
        if system.alive:
            system.kill()
        EmbeddedValkey(system.settings.store_dir).stop()
        for process in system.processes():
            process.kill()
