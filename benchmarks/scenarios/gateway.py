"""Requests a second and CPU a request through the gateway, beside what the framework alone does.

    peer      FastAPI ingress and one handle hop in Ray Serve, nothing else: the floor of the framework
    local     our gateway, over a handle to the fake engine
    remote    our gateway, to the mock upstream as a remote pool
    ray_llm   ray.serve.llm's own OpenAI ingress, over a handle to a server that answers at once
    upstream  the mock upstream alone, no gateway: the floor of the load generator

All but the last are applications of one Ray Serve behind one HAProxy. `local` and `remote` authenticate,
reserve quota, route, meter and settle; the peers do none of it. The models cost next to nothing, so what is
measured is what stands in front of them.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil

from benchmarks import child, processes
from benchmarks.scenario import Arm, HttpRequest, Load, Options
from benchmarks.serve_host import READY, App, HostPlan, environment
from cluster.config import FakeSpec, OpenAISpec
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.settings import Settings, load_settings

CONFIG = Path(__file__).parent.parent / "configs" / "gateway.yaml"
HTTP_PORT = 18000
UPSTREAM_PORT = 18081
PORTS_FROM = 18100
START_TIMEOUT_S = 300
AMPLE = 1_000_000_000
"""A limit that counts and never refuses."""

CHAT = Load("chat", connections=32)
STREAM = Load("stream", connections=16)
"""Twenty chunks."""
PROMPT = "Say twenty words about serving models on a cluster, in the tone of a harbour pilot."
LAST_WORD = "word19"
"""Ends every answer of every arm."""

OURS = ("local", "remote")
PEERS = {
    "peer": App("peer", "/peer", "benchmarks.peer:build"),
    "ray_llm": App("ray-llm", "/ray-llm", "benchmarks.ray_llm_peer:build"),
}


class GatewayScenario:
    """Implements `Scenario`."""

    loads: tuple[Load, ...] = (CHAT, STREAM)
    arm_names: tuple[str, ...] = ("peer", "local", "remote", "ray_llm", "upstream")
    baseline = "peer"

    def __init__(self, options: Options) -> None:
        self._wanted = options.arms or self.arm_names
        self._config = options.config or CONFIG

    @contextmanager
    def started(self) -> Iterator[list[Arm]]:
        """Raises `ChildFailed` when a server does not come up, `ConfigError` for a config that cannot be."""
        with ExitStack() as stack:
            upstream = stack.enter_context(_upstream())
            arms = {"upstream": _upstream_arm(upstream)}
            apps = [app for name, app in PEERS.items() if name in self._wanted]
            ours = any(name in OURS for name in self._wanted)
            settings = load_settings(self._config)
            if ours:
                stack.enter_context(_store(settings))
                apps.append(App("gateway", "/", "serve_apps.app:build", {"config": str(self._config)}))
            if apps:
                host = stack.enter_context(_serve(apps))
                arms |= _peer_arms(host)
                if ours:
                    arms |= _our_arms(host, settings)
            yield [arms[name] for name in self.arm_names if name in self._wanted]


def _upstream_arm(upstream: psutil.Process) -> Arm:
    return Arm(
        "upstream",
        "the mock upstream alone, no gateway",
        _requests(UPSTREAM_PORT, "", "mock"),
        lambda: processes.tree(upstream),
    )


def _peer_arms(host: psutil.Process) -> dict[str, Arm]:
    return {
        "peer": Arm(
            "peer",
            "bare FastAPI ingress and one handle hop; no keys, no quotas",
            _requests(HTTP_PORT, "/peer", "mock"),
            lambda: _serving(host, "ServeReplica:peer:"),
        ),
        "ray_llm": Arm(
            "ray_llm",
            "ray.serve.llm's OpenAiIngress over a server that answers at once; no keys, no quotas",
            _requests(HTTP_PORT, "/ray-llm", "fake"),
            lambda: _serving(host, "ServeReplica:ray-llm:"),
        ),
    }


def _our_arms(host: psutil.Process, settings: Settings) -> dict[str, Arm]:
    """Raises `StopIteration` for a config without a fake or a remote model."""
    key = asyncio.run(_new_key(settings))
    local = next(spec.name for spec in settings.models if isinstance(spec, FakeSpec))
    remote = next(spec.name for spec in settings.models if isinstance(spec, OpenAISpec))
    gateway = "ServeReplica:gateway:gateway"

    def with_store(*titles: str) -> list[psutil.Process]:
        return [*_serving(host, *titles), *_store_processes(settings)]

    return {
        "local": Arm(
            "local",
            "our gateway over a handle to the fake engine; keys, quotas, metering on",
            _requests(HTTP_PORT, "", local, key),
            lambda: with_store(gateway, f"ServeReplica:gateway:model-{local}"),
        ),
        "remote": Arm(
            "remote",
            "our gateway to the mock upstream as a remote pool; keys, quotas, metering on",
            _requests(HTTP_PORT, "", remote, key),
            lambda: with_store(gateway),
        ),
    }


def _serving(host: psutil.Process, *titles: str) -> list[psutil.Process]:
    """The replicas with these titles, and HAProxy, which works for the arm that is measured alone."""
    return processes.titled(processes.tree(host), "bin/haproxy", *titles)


def _store_processes(settings: Settings) -> list[psutil.Process]:
    pid = EmbeddedValkey(settings.store_dir).pid() if settings.store.url is None else None
    return [psutil.Process(pid)] if pid is not None and psutil.pid_exists(pid) else []


def _requests(port: int, prefix: str, model: str, key: str | None = None) -> dict[str, HttpRequest]:
    """The same question for both loads, one of them streamed."""
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    question = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 20,
    }
    return {
        load.name: HttpRequest(
            "127.0.0.1",
            port,
            f"{prefix}/v1/chat/completions",
            json.dumps(question | {"stream": load is STREAM}).encode(),
            headers,
            LAST_WORD,
        )
        for load in (CHAT, STREAM)
    }


async def _new_key(settings: Settings) -> str:
    """A key with both limits, so that every call reserves and settles, and none is refused."""
    url = settings.store.url or EmbeddedValkey(settings.store_dir).url
    store = Store.connect(url, timeout_s=2)
    try:
        keys = KeyStore(store, load_or_create_pepper(settings.pepper_file))
        token, _ = await keys.create("benchmark", "gateway", allowance=Allowance(Limits(AMPLE, AMPLE)))
        return token
    finally:
        await store.close()


@contextmanager
def _store(settings: Settings) -> Iterator[None]:
    """The embedded store, started before Serve needs it and stopped after, unless it ran already."""
    server = EmbeddedValkey(settings.store_dir)
    if settings.store.url is not None or server.is_alive():
        yield
        return
    server.start_or_adopt()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _upstream() -> Iterator[psutil.Process]:
    command = ["benchmarks.mock_upstream", "--port", str(UPSTREAM_PORT)]
    with child.running(command, ready="listening", within_s=30) as upstream:
        yield upstream


@contextmanager
def _serve(apps: list[App]) -> Iterator[psutil.Process]:
    """The applications on a Ray instance of their own; the process that everything hangs from."""
    with tempfile.TemporaryDirectory(prefix="cgb-", ignore_cleanup_errors=True) as temp:
        plan = HostPlan(temp, HTTP_PORT, apps)
        with child.running(
            ["benchmarks.serve_host"],
            ready=READY,
            within_s=START_TIMEOUT_S,
            line=msgspec.json.encode(plan).decode(),
            environment=environment(Path(temp), PORTS_FROM),
        ) as host:
            yield host
