"""A module of this repository as a child process: waited for until it is ready, ended with all it started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from benchmarks import processes

ROOT = Path(__file__).parent.parent
STOP_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 5.0
TAIL = 3000
"""Characters of a failed child's last words that are shown."""


class ChildFailed(Exception):
    """The child ended, or was not ready in time. Holds what it last wrote to stderr."""


@contextmanager
def running(
    arguments: list[str],
    *,
    ready: str,
    within_s: float,
    line: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """`python -m arguments`, from the moment it writes a line that starts with `ready`.

    `line` goes to its standard input first. On leaving, its input is closed, which such a child takes as
    the wish to stop; what is left of it and its descendants after that is killed. Raises ChildFailed.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        process = psutil.Process(child.pid)
        try:
            _talk_until_ready(arguments[0], child, line, ready, within_s)
            yield process
        except ChildFailed as failed:
            errors.seek(0)
            raise ChildFailed(f"{failed}\n{errors.read()[-TAIL:]}") from failed
        finally:
            _stop(child, process)


def _talk_until_ready(
    name: str, child: subprocess.Popen[str], line: str, ready: str, within_s: float
) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    late = threading.Timer(within_s, lambda: _kill(processes.tree(psutil.Process(child.pid))))
    late.start()
    try:
        if line:
            child.stdin.write(line + "\n")
            child.stdin.flush()
        _read_until(child.stdout, ready, name)
    except BrokenPipeError as error:
        raise ChildFailed(f"{name} ended before it was told what to do") from error
    finally:
        late.cancel()


def _read_until(stdout: IO[str], ready: str, name: str) -> None:
    for line in stdout:
        if line.startswith(ready):
            return
    raise ChildFailed(f"{name} ended, or was not ready in time")


def _stop(child: subprocess.Popen[str], process: psutil.Process) -> None:
    descendants = processes.tree(process)
    assert child.stdin is not None
    try:
        child.stdin.close()
        child.wait(STOP_TIMEOUT_S)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        child.kill()
    _kill(descendants)


def _kill(targets: list[psutil.Process]) -> None:
    for target in targets:
        try:
            target.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(targets, timeout=KILL_TIMEOUT_S)
