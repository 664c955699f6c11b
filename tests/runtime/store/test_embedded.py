"""The embedded server: one to a directory, adopted if alive, and no acknowledged write lost with it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from runtime.store.errors import SocketPathTooLong, StoreStartFailed, StoreUnavailable
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.quotas import QuotaLedger, Totals


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(tmp_path / "store")
    yield valkey
    valkey.stop()


def kill(valkey: EmbeddedValkey) -> int:
    """SIGKILLs the server and returns the process id it had, once that is gone."""
    pid = valkey.pid()
    assert pid is not None
    exited = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([exited], [], [], 10)[0]
    os.close(exited)
    return pid


START_AND_TELL = """
import sys
from pathlib import Path
from runtime.store.embedded import EmbeddedValkey

valkey = EmbeddedValkey(Path(sys.argv[1]))
print(valkey.start_or_adopt(), valkey.pid())
"""


def start_elsewhere(directory: Path, times: int = 1) -> set[str]:
    """What each of so many processes says that start or adopt at once: "<url> <pid>"."""
    command = [sys.executable, "-c", START_AND_TELL, str(directory)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(times)]
    seen = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * times
    return seen


def test_it_starts_answers_and_stops_without_a_trace(valkey: EmbeddedValkey) -> None:
    assert not valkey.is_alive()
    assert valkey.start_or_adopt() == f"unix://{valkey.socket}"
    assert valkey.is_alive()
    pid = valkey.pid()
    assert pid is not None
    valkey.stop()
    assert not valkey.is_alive()
    assert valkey.pid() is None
    assert not valkey.socket.exists()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    valkey.stop()


def test_only_its_owner_can_reach_it(valkey: EmbeddedValkey) -> None:
    valkey.directory.mkdir(mode=0o755)
    valkey.start_or_adopt()
    assert stat.S_IMODE(valkey.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(valkey.socket.stat().st_mode) == 0o600
    pid = valkey.pid()
    assert psutil.Process(pid).net_connections(kind="inet") == []


def test_a_living_server_is_adopted(valkey: EmbeddedValkey) -> None:
    url, pid = valkey.start_or_adopt(), valkey.pid()
    assert valkey.start_or_adopt() == url
    assert EmbeddedValkey(valkey.directory).start_or_adopt() == url
    assert valkey.pid() == pid


def test_it_outlives_the_process_that_started_it(valkey: EmbeddedValkey) -> None:
    seen = start_elsewhere(valkey.directory)
    url, pid = valkey.start_or_adopt(), valkey.pid()
    assert seen == {f"{url} {pid}"}
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)


def test_starters_that_race_share_one_server(valkey: EmbeddedValkey) -> None:
    seen = start_elsewhere(valkey.directory, times=4)
    assert seen == {f"{valkey.url} {valkey.pid()}"}
    assert valkey.is_alive()


def test_leftovers_of_a_killed_server_are_no_obstacle(valkey: EmbeddedValkey) -> None:
    valkey.start_or_adopt()
    killed = kill(valkey)
    assert valkey.socket.exists()
    assert valkey.pid() == killed
    assert not valkey.is_alive()
    valkey.start_or_adopt()
    assert valkey.pid() != killed
    assert valkey.log.with_suffix(".log.previous").exists()


def test_a_pid_file_that_names_somebody_else_is_not_believed(valkey: EmbeddedValkey) -> None:
    valkey.start_or_adopt()
    kill(valkey)
    (valkey.directory / "valkey.pid").write_text(str(os.getpid()))
    assert not valkey.is_alive()
    valkey.stop()
    valkey.start_or_adopt()
    assert valkey.pid() != os.getpid()


def test_a_server_that_does_not_listen_is_still_stopped(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.store.embedded.STOP_TIMEOUT_S", 0.2)
    valkey.start_or_adopt()
    pid = valkey.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    valkey.stop()
    assert valkey.pid() is None


def test_a_broken_append_only_file_is_told(valkey: EmbeddedValkey) -> None:
    valkey.start_or_adopt()
    valkey.stop()
    (valkey.directory / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StoreStartFailed, match=r"manifest|AOF|append"):
        valkey.start_or_adopt()


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(SocketPathTooLong, match="shorter path"):
        EmbeddedValkey(tmp_path / ("x" * 100))


async def test_no_acknowledged_settlement_is_lost_when_the_server_is_killed(valkey: EmbeddedValkey) -> None:
    """Ten times: SIGKILL in the midst of reserves and settles, then the ledger of what was acknowledged."""
    key = Caller("acme", "k1")
    acknowledged = attempted = 0
    for round_number in range(10):
        store = Store.connect(await asyncio.to_thread(valkey.start_or_adopt), timeout_s=5)
        ledger = QuotaLedger(store)
        enough = asyncio.Event()

        async def work(worker: int, ledger: QuotaLedger, enough: asyncio.Event, names: str) -> None:
            nonlocal acknowledged, attempted
            for number in range(10_000):
                reservation = await ledger.reserve(
                    key, Demand("m", 3, 0), reservation_id=f"{names}-{worker}-{number}"
                )
                attempted += 3
                await ledger.settle(reservation, Spent(3))
                acknowledged += 3
                if number == 5:
                    enough.set()

        workers = [
            asyncio.ensure_future(work(number, ledger, enough, str(round_number))) for number in range(20)
        ]
        await enough.wait()
        await asyncio.to_thread(kill, valkey)
        results = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results), results
        await store.close()

        store = Store.connect(await asyncio.to_thread(valkey.start_or_adopt), timeout_s=5)
        totals: Totals = await QuotaLedger(store).totals(key.tenant, key.id)
        assert acknowledged <= totals.tokens <= attempted
        acknowledged = attempted = totals.tokens
        await store.close()
    assert acknowledged >= 10 * 20 * 3


async def test_the_same_client_works_on_when_the_server_is_back(valkey: EmbeddedValkey) -> None:
    store = Store.connect(await asyncio.to_thread(valkey.start_or_adopt), timeout_s=5)
    await store.execute("SET", "a", 1)
    await asyncio.to_thread(kill, valkey)
    with pytest.raises(StoreUnavailable):
        await store.execute("GET", "a")
    await asyncio.to_thread(valkey.start_or_adopt)
    assert await store.execute("GET", "a") == b"1"
    await store.close()
