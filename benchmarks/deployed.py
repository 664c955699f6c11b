"""Our gateway as arms: deployed as users deploy it, on a Ray Serve of its own, and asked with a key.

Every call authenticates, reserves and settles quota, is metered, told to the log and to the accounts. What is
counted for an arm is all that works for it: HAProxy, the gateway, the model's replica, the store and the
accountant.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from benchmarks import child, processes
from benchmarks.scenario import HttpRequest
from benchmarks.serve_host import READY, App, HostPlan, environment
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.settings import Settings

ROOT = Path(__file__).parent
START_TIMEOUT_S = 300
AMPLE = 1_000_000_000
"""A limit that counts and never refuses."""
TENANT = "benchmark"
GATEWAY = App("gateway", "/", "serve_apps.app:build")
ENGINE = "VLLM::EngineCore"
_HELPERS = ("ServeReplica:gateway:gateway", "ServeReplica:gateway:accountant")

PROMPT = "Say twenty words about serving models on a cluster, in the tone of a harbour pilot."
LAST_WORD = "word19"
"""Ends every answer of every arm over a scripted model."""


def question(
    port: int,
    model: str,
    *,
    stream: bool = False,
    prefix: str = "",
    headers: Mapping[str, str] | None = None,
    max_tokens: int = 20,
) -> HttpRequest:
    """The chat that every arm is asked."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": max_tokens}
    return HttpRequest(
        "127.0.0.1",
        port,
        f"{prefix}/v1/chat/completions",
        json.dumps(body | {"stream": stream}).encode(),
        dict(headers or {}),
        LAST_WORD,
    )


def with_key(token: str) -> dict[str, str]:
    """The headers of a caller."""
    return {"Authorization": f"Bearer {token}"}


def new_key(settings: Settings, limits: Limits | None = None) -> str:
    """A key with limits of requests and tokens, so that every call reserves and settles; ample ones, unless
    it is said which."""
    return asyncio.run(_new_key(settings, limits or Limits(AMPLE, AMPLE)))


async def _new_key(settings: Settings, limits: Limits) -> str:
    url = settings.store.url or EmbeddedValkey(settings.store_dir).url
    store = Store.connect(url, timeout_s=2)
    try:
        keys = KeyStore(store, load_or_create_pepper(settings.pepper_file))
        token, _ = await keys.create(TENANT, "gateway", allowance=Allowance(limits))
        return token
    finally:
        await store.close()


def answered_before(request: HttpRequest) -> HttpRequest:
    """The request under an idempotency key of its own: all but the first are answered by the gateway itself,
    with what it kept."""
    headers = {**request.headers, "Idempotency-Key": uuid.uuid4().hex}
    return msgspec.structs.replace(request, headers=headers)


def working(host: psutil.Process, settings: Settings, *models: str) -> Callable[[], list[psutil.Process]]:
    """What works for calls of these models, if they run here; of vLLM the process of its engine too."""
    titles = (*_HELPERS, *(f"ServeReplica:gateway:model-{model}" for model in models), ENGINE)
    return lambda: [*serving(host, *titles), *_store_processes(settings)]


def serving(host: psutil.Process, *titles: str) -> list[psutil.Process]:
    """The replicas with these titles, and HAProxy, which works for the arm that is measured alone."""
    return processes.titled(processes.tree(host), "bin/haproxy", *titles)


def _store_processes(settings: Settings) -> list[psutil.Process]:
    pid = EmbeddedValkey(settings.store_dir).pid() if settings.store.url is None else None
    return [psutil.Process(pid)] if pid is not None and psutil.pid_exists(pid) else []


@contextmanager
def store_of(settings: Settings) -> Iterator[None]:
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


def gateway_app(config: Path) -> App:
    """The whole deployment of a config."""
    return msgspec.structs.replace(GATEWAY, args={"config": str(config)})


@contextmanager
def serve(apps: list[App], http_port: int, ports_from: int) -> Iterator[psutil.Process]:
    """The applications on a Ray instance of their own; the process that everything hangs from."""
    with tempfile.TemporaryDirectory(prefix="cgb-", ignore_cleanup_errors=True) as temp:
        plan = HostPlan(temp, http_port, apps)
        with child.running(
            ["benchmarks.serve_host"],
            ready=READY,
            within_s=START_TIMEOUT_S,
            line=msgspec.json.encode(plan).decode(),
            environment=environment(Path(temp), ports_from),
        ) as host:
            yield host


@contextmanager
def gateway(
    config: Path, settings: Settings, http_port: int, ports_from: int
) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Our gateway and its store, with no other application beside it: the process that everything hangs from,
    and the headers of a caller."""
    with store_of(settings), serve([gateway_app(config)], http_port, ports_from) as host:
        yield host, with_key(new_key(settings))


@contextmanager
def upstream(port: int) -> Iterator[psutil.Process]:
    """The mock upstream."""
    command = ["benchmarks.mock_upstream", "--port", str(port)]
    with child.running(command, ready="listening", within_s=30) as running:
        yield running
