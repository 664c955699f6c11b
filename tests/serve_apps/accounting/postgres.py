"""A PostgreSQL server of the tests' own, on a Unix socket, without durability: it dies with the tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_S = 120
USER = "usage"


def binary(name: str) -> str | None:
    """Where the program is: on the path, or where Debian keeps those of each version."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


def why_not() -> str:
    """Why there can be no server here; empty where there can."""
    missing = [name for name in ("postgres", "initdb") if binary(name) is None]
    if missing:
        return f"there is no {missing[0]} on this machine: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "the package psycopg is not installed: pip install '.[postgres]'"
    return ""


class Postgres:
    """Use as a context manager. PostgreSQL refuses to run as root: there it runs as `nobody`."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes its log. Its data lie in a folder that any user can reach, as pytest's cannot."""
        self._log = folder / "postgres.log"
        self._root = Path(tempfile.mkdtemp(prefix="cgh-postgres-"))  # short: a socket's path has 107 bytes
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self._root, self._user.pw_uid, self._user.pw_gid)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}@/{database}?host={self._root}"

    def __enter__(self) -> Postgres:
        data = str(self._root / "data")
        initdb = self._run("initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        assert initdb.wait(timeout=START_S) == 0, self._log.read_text()
        settings = {"listen_addresses": "", "unix_socket_directories": str(self._root), "fsync": "off"}
        self._server = self._run(
            "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())
        )
        until = time.monotonic() + START_S
        while not self._ready():
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.send_signal(signal.SIGINT)  # "fast": whoever is connected is thrown out
        self._server.wait(timeout=START_S)
        shutil.rmtree(self._root)

    def _ready(self) -> bool:
        assert self._server.poll() is None, self._log.read_text()
        # The last line is written once connections are taken.
        pid_file = self._root / "data" / "postmaster.pid"
        return pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = binary(name)
        assert program is not None
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [program, *arguments],
                cwd=self._root,
                stdout=log,
                stderr=log,
                user=self._user.pw_uid if self._user is not None else None,
                group=self._user.pw_gid if self._user is not None else None,
                extra_groups=[] if self._user is not None else None,
            )
