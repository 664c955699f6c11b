"""The store's client, on both kinds of server."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime.store import errors
from runtime.store.client import Script, ScriptCall, Store
from runtime.store.errors import CommandFailed, InvalidStoreUrl, StoreOut, StoreUnavailable
from tests.tls import self_signed

REVOKE = Script("key_revoke")

RunRedis = Callable[..., AbstractContextManager[object]]


async def test_commands_and_replies(store: Store) -> None:
    await store.ping()
    assert await store.execute("SET", "a", b"\x00\xff") == b"OK"
    assert await store.execute("GET", "a") == b"\x00\xff"
    assert await store.execute("GET", "missing") is None


async def test_a_refused_command_harms_no_other(store: Store) -> None:
    await store.execute("SET", "text", "x")
    first, refused, last = await store.execute_many([("GET", "text"), ("LPUSH", "text", 1), ("GET", "text")])
    assert (first, last) == (b"x", b"x")
    assert isinstance(refused, CommandFailed)
    with pytest.raises(CommandFailed, match="WRONGTYPE"):
        await store.execute("LPUSH", "text", 1)


async def test_a_script_the_store_lacks_is_loaded(store: Store) -> None:
    await store.execute("SCRIPT", "FLUSH")
    await store.execute("HSET", "k", "f", "v")
    calls = [ScriptCall(REVOKE, [key], [60_000]) for key in ("k", "none", "k")]
    assert await store.run_many(calls) == [1, 0, 1]
    assert await store.run(REVOKE, ["none"], [1]) == 0


async def test_a_script_travels_as_its_hash_once_known(store: Store) -> None:
    await store.run(REVOKE, ["none"], [1])
    await store.execute("CONFIG", "RESETSTAT")
    await store.run_many([ScriptCall(REVOKE, ["none"], [1])] * 3)
    stats = (await store.execute("INFO", "commandstats")).decode()
    assert "cmdstat_evalsha:calls=3" in stats
    assert "cmdstat_eval:" not in stats


async def test_concurrent_commands_share_few_connections(store: Store) -> None:
    replies = await asyncio.gather(*(store.execute("INCR", "n") for _ in range(500)))
    assert sorted(replies) == list(range(1, 501))
    clients = (await store.execute("CLIENT", "LIST")).decode().splitlines()
    assert len(clients) <= 16


async def test_a_connection_that_died_while_idle_is_replaced(store: Store, store_url: str) -> None:
    killer = Store.connect(store_url, timeout_s=5)
    await store.ping()
    assert await killer.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 1
    await killer.close()
    assert await store.execute("GET", "x") is None


async def test_a_mute_store_is_unavailable_within_the_timeout(mute_url: str) -> None:
    store = Store.connect(mute_url, timeout_s=0.05)
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="within 50 ms"):
        await store.ping()
    assert asyncio.get_running_loop().time() - began < 100
    await store.close()


async def test_a_store_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"redis://127.0.0.1:{port}", f"unix://{tmp_path}/none.sock"):
        store = Store.connect(url)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await store.close()


class Gate:
    """In front of a store: connections that are made through it can be made to hang, as in a partition."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._open = asyncio.Event()
        self._open.set()
        self.connections = 0
        self._age = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        host, port = self._server.sockets[0].getsockname()
        return f"redis://{host}:{port}"

    def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def hang(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    def lose(self) -> None:
        """Connections that were made so far hang for ever."""
        self._age += 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket_path)
        for source, sink in ((reader, inner_writer), (inner_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink, self._age)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, age: int) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            if age == self._age:
                sink.write(data)
        sink.close()


@pytest.fixture
async def gate(valkey_url: str) -> AsyncIterator[Gate]:
    gate = Gate(valkey_url.removeprefix("unix://"))
    yield gate
    gate.close()


async def test_while_the_store_is_out_nothing_is_asked_and_then_it_is_found_to_be_back(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.connect(await gate.start(), timeout_s=1.0, fail_fast=True)
    await store.ping()
    gate.hang()
    with caplog.at_level(logging.WARNING, "runtime.store.client"):
        under_way = [asyncio.ensure_future(store.execute("INCR", "n")) for _ in range(3)]
        for each in await asyncio.gather(*under_way, return_exceptions=True):
            assert isinstance(each, StoreUnavailable)
            assert not isinstance(each, StoreOut)
        for _ in range(1000):
            with pytest.raises(StoreOut):
                await store.execute("INCR", "n")
        gate.go_on()
        async with asyncio.timeout(30):
            await store.answering()
        await store.ping()
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ["store_out", "store_back"]
    await store.close()


async def test_connections_from_before_an_outage_are_not_used_after_it(gate: Gate) -> None:
    """They may lead nowhere: what is between us and the store has forgotten them."""
    store = Store.connect(await gate.start(), timeout_s=1.0, fail_fast=True)
    await asyncio.gather(*(store.execute("BLPOP", f"none-{n}", 0.2) for n in range(8)))
    before = gate.connections
    gate.lose()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    async with asyncio.timeout(30):
        await store.answering()
    await asyncio.gather(*(store.execute("BLPOP", f"none-{n}", 0.2) for n in range(8)))
    assert gate.connections >= before + 8
    await store.close()


async def test_a_patient_store_is_asked_while_it_is_out(gate: Gate) -> None:
    store = Store.connect(await gate.start(), timeout_s=1.0)
    gate.hang()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await store.ping()
    gate.go_on()
    async with asyncio.timeout(30):
        await store.answering()
    await store.ping()
    await store.close()


async def test_a_stall_of_the_event_loop_is_not_blamed_on_the_store(store_url: str) -> None:
    store = Store.connect(store_url, timeout_s=0.5)
    await store.ping()
    asking = asyncio.ensure_future(store.execute("ECHO", "x"))
    await asyncio.sleep(0)
    threading.Event().wait(0.8)  # what a long garbage collection does
    assert await asking == b"x"
    await store.close()


async def test_a_burst_of_our_own_work_is_not_blamed_on_the_store(store_url: str) -> None:
    store = Store.connect(store_url, timeout_s=0.5)
    await store.ping()

    async def burst() -> None:
        for _ in range(2):  # turns of the loop that each outlast the time-out
            threading.Event().wait(0.6)
            await asyncio.sleep(0)

    asking = asyncio.ensure_future(store.execute("ECHO", "x"))
    await burst()
    assert await asking == b"x"
    await store.close()


async def test_a_call_that_timed_out_leaves_no_reply_for_the_next(store_url: str) -> None:
    store = Store.connect(store_url, timeout_s=0.5)
    await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.execute("BLPOP", "nothing-comes", 5)
    assert await store.execute("ECHO", "mine") == b"mine"
    await store.close()


async def test_passwords_stay_out_of_sight(store_url: str) -> None:
    path = store_url.removeprefix("unix://")
    store = Store.connect(f"unix://somebody:hunter2@{path}?db=0")
    with pytest.raises(StoreUnavailable) as caught:
        await store.ping()
    assert "hunter2" not in repr(store) + str(store) + repr(caught.value) + str(caught.value.__cause__)
    await store.close()
    with pytest.raises(InvalidStoreUrl) as invalid:
        Store.connect("https://me:hunter2@example.com")
    assert "hunter2" not in str(invalid.value)
    assert invalid.value.__cause__ is None


async def test_a_user_and_password_of_the_url_are_used(store: Store, store_url: str) -> None:
    await store.execute("ACL", "SETUSER", "reader", "on", ">se:cret", "~*", "+get", "+ping")
    reader = Store.connect(store_url.replace("unix://", "unix://reader:se%3Acret@"), timeout_s=5)
    assert await reader.execute("GET", "x") is None
    with pytest.raises(CommandFailed, match="NoPermission"):
        await reader.execute("SET", "x", 1)
    await reader.close()
    await store.execute("ACL", "DELUSER", "reader")


async def test_a_full_store_is_unavailable(store: Store) -> None:
    await store.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            await store.execute("SET", "a", "b")
    finally:
        await store.execute("CONFIG", "SET", "maxmemory", 0)


def test_a_store_serves_one_event_loop(valkey_url: str) -> None:
    store = Store.connect(valkey_url, timeout_s=5)

    async def ping_and_close() -> None:
        await store.ping()
        await store.close()

    asyncio.run(ping_and_close())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(store.ping())


async def test_tls(tmp_path: Path, run_redis: RunRedis) -> None:
    certificate = self_signed(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--requirepass", "pass")
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(tmp_path / "key.pem"))
    with run_redis("--bind", "127.0.0.1", *tls, *files, "--tls-ca-cert-file", str(certificate)):
        url = f"rediss://:pass@127.0.0.1:{port}"
        trusting = Store.connect(f"{url}?ssl_ca_certs={certificate}", timeout_s=5)
        await trusting.ping()
        await trusting.close()
        wary = Store.connect(url, timeout_s=5)
        with pytest.raises(StoreUnavailable):
            await wary.ping()
        await wary.close()


@pytest.mark.parametrize(
    "kind", [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StoreError)]
)
def test_errors_survive_pickling(kind: type[errors.StoreError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("why")))
    assert type(copy) is kind
    assert str(copy) == "why"
