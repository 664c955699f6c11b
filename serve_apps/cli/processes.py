"""Our processes: finding all of them, and ending all of them.

Ray starts daemons, and killing Ray leaves HAProxy and vLLM's engine processes alive. Two things make every
one of them findable: whoever runs the system is their subreaper, so orphans become its children; and all
inherit a marker in their environment, which a later start can look for.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import psutil

from serve_apps.cli.environment import MARKER

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphaned descendants become children of this process instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def of_system(data_dir: Path) -> list[psutil.Process]:
    """Processes of a system on that data directory, started by whomever, without this one and its parents."""
    here = psutil.Process()
    own = {here.pid, *(parent.pid for parent in here.parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in own and _marker(process) == str(data_dir)
    ]


def listening_on(ports: Iterable[int]) -> dict[int, str]:
    """Who holds which of the ports, as "name (process 123)"; only ports that are held."""
    wanted = set(ports)
    holders: dict[int, str] = {}
    for connection in psutil.net_connections("tcp"):
        port = connection.laddr[1] if connection.laddr else 0
        if connection.status == psutil.CONN_LISTEN and port in wanted:
            holders[port] = describe(connection.pid) if connection.pid else "a process of another user"
    return holders


def describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        title = " ".join(process.cmdline())[:80] or process.name()
    except psutil.Error:
        title = "a process"
    return f"{title} (process {pid})"


def end(processes: list[psutil.Process], *, grace_s: float) -> list[psutil.Process]:
    """Ask with SIGTERM, insist with SIGKILL after the grace. Returns who is alive even then."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process.kill)
    _, alive = psutil.wait_procs(alive, timeout=5)
    return alive


def start(command: list[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A child in a session of its own, so that Ctrl-C reaches it only through us."""
    return subprocess.Popen(  # noqa: S603
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def _signal(send: object) -> None:
    try:
        send()  # type: ignore[operator]
    except psutil.NoSuchProcess:
        return


def _marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
