"""With real processes: a starter, as a replica is one, and what it has started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from cluster.engines.orphans import MARKER, end_orphans, mark

STARTER = """
import subprocess, sys
from cluster.engines.orphans import mark
mark()
code = "import signal, time; signal.signal(signal.SIGTERM, signal.{handler}); print('up', flush=True)"
code += "; time.sleep(600)"
engine = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
engine.stdout.readline()
print(engine.pid, flush=True)
sys.stdin.read()
"""

Start = Callable[..., tuple[subprocess.Popen[str], psutil.Process]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts starters, each with one process of an engine. All are gone at the end."""
    started: list[subprocess.Popen[str]] = []
    engines: list[psutil.Process] = []

    def one(handler: str = "SIG_DFL") -> tuple[subprocess.Popen[str], psutil.Process]:
        starter = subprocess.Popen(
            [sys.executable, "-c", STARTER.replace("{handler}", handler)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        started.append(starter)
        assert starter.stdout is not None
        engines.append(psutil.Process(int(starter.stdout.readline())))
        return starter, engines[-1]

    yield one
    for engine in engines:
        if engine.is_running():
            engine.kill()
    for starter in started:
        starter.kill()
        starter.communicate()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_outlived_its_replica_is_ended_and_nothing_else(start: Start) -> None:
    dead, orphan = start()
    _, kept = start()
    dead.kill()
    dead.wait()
    assert not gone(orphan), "a killed replica takes nothing with it"
    assert end_orphans() == [orphan.pid]
    assert gone(orphan)
    assert not gone(kept)
    assert end_orphans() == []


def test_one_that_does_not_listen_is_killed(start: Start) -> None:
    dead, orphan = start("SIG_IGN")
    dead.kill()
    dead.wait()
    assert end_orphans(grace_s=1) == [orphan.pid]
    assert gone(orphan)


def test_a_replica_that_nobody_has_waited_for_is_gone_too(start: Start) -> None:
    dead, orphan = start()
    dead.kill()
    psutil.wait_procs([orphan], timeout=0)
    while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert end_orphans() == [orphan.pid]


def test_the_number_of_a_dead_replica_may_have_been_given_again(start: Start) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        env={**os.environ, MARKER: f"{os.getpid()} 1"},
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert end_orphans() == [other.pid]
    finally:
        other.kill()
        other.communicate()


def test_a_replica_marks_what_it_starts_as_its_own() -> None:
    environ: dict[str, str] = {}
    mark(environ)
    assert environ[MARKER].split()[0] == str(os.getpid())
    assert environ["SPT_NOENV"] == "1"
