"""Stores for tests: real servers, both kinds, empty at the start of every test."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey

STORE_TIMEOUT_S = 20.0
"""Generous: a test machine may be busy. Tests of time-outs connect their own."""

# Property tests are not timed, and neither is the drawing of their examples: a test machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@contextmanager
def run_redis_server(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Debian's redis-server with `options`, ready; stopped at the end."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.fail("redis-server is missing, and the store is tested on it: apt-get install redis-server")
    command = [binary, "--save", "", "--daemonize", "no", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            said = []
            for line in server.stdout:
                said.append(line)
                if "eady to accept connections" in line:
                    break
            else:
                pytest.fail(f"redis-server did not start: {''.join(said)}")
            yield server
        finally:
            server.terminate()
            server.stdout.read()


@asynccontextmanager
async def _empty_store(url: str) -> AsyncIterator[Store]:
    store = Store.connect(url, timeout_s=STORE_TIMEOUT_S)
    try:
        await store.execute("FLUSHALL")
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One embedded Valkey for the session."""
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    yield valkey.start_or_adopt()
    valkey.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Debian redis-server for the session."""
    socket: Path = tmp_path_factory.mktemp("redis") / "redis.sock"
    with run_redis_server("--port", "0", "--unixsocket", str(socket)):
        yield f"unix://{socket}"


@pytest.fixture(params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The embedded Valkey and Debian's Redis in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An empty store, of both kinds in turn."""
    async with _empty_store(store_url) as store:
        yield store


@pytest.fixture
async def valkey_store(valkey_url: str) -> AsyncIterator[Store]:
    """An empty embedded store: for tests of what is built on the store, not of the store."""
    async with _empty_store(valkey_url) as store:
        yield store


@pytest.fixture
def run_redis() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    """`with run_redis(*options)`: another Debian redis-server."""
    return run_redis_server


@pytest.fixture
async def mute_url() -> AsyncIterator[str]:
    """A server that accepts connections and never answers."""
    left: set[asyncio.Task[None]] = set()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.add(asyncio.ensure_future(listen(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    yield f"redis://{host}:{port}"
    server.close()
    await asyncio.gather(*left)


ENGINE_TIMEOUT_S = 2700
"""A test's bound where its set-up may start the real engine; others have the one in pyproject.toml."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("engine") or "e2e" in item.path.parts:
            item.add_marker(pytest.mark.timeout(ENGINE_TIMEOUT_S))
