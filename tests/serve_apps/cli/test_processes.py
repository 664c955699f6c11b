from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from serve_apps.cli import processes
from serve_apps.cli.environment import MARKER

READY_THEN_WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY_THEN_WAIT

PARENT_OF_AN_ORPHAN = """
from subprocess import DEVNULL, Popen
print(Popen(["sleep", "60"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL).pid)
"""
SUBREAPER = f"""
import subprocess, sys
from serve_apps.cli import processes

processes.become_subreaper()
done = subprocess.run([sys.executable, "-c", {PARENT_OF_AN_ORPHAN!r}], stdout=subprocess.PIPE, check=True)
mine = processes.descendants()
processes.end(mine, grace_s=2)
print(int(done.stdout) in [process.pid for process in mine], len(processes.descendants()))
"""


def spawn(code: str, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=60)


def test_processes_of_a_system_are_found_by_their_marker(tmp_path: Path) -> None:
    ours = spawn(READY_THEN_WAIT, **{MARKER: str(tmp_path)})
    other = spawn(READY_THEN_WAIT, **{MARKER: str(tmp_path / "other")})
    try:
        assert [process.pid for process in processes.of_system(tmp_path)] == [ours.pid]
    finally:
        close(ours)
        close(other)
    assert processes.of_system(tmp_path) == []


def test_a_held_port_is_named_with_its_holder() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        holders = processes.listening_on([port])
    assert list(holders) == [port]
    assert f"(process {os.getpid()})" in holders[port]


def test_ending_insists_with_those_that_ignore_a_request() -> None:
    gentle, stubborn = spawn(READY_THEN_WAIT), spawn(STUBBORN)
    alive = processes.end([psutil.Process(gentle.pid), psutil.Process(stubborn.pid)], grace_s=0.2)
    assert alive == []
    close(gentle)
    close(stubborn)


def test_orphans_come_to_the_subreaper() -> None:
    done = subprocess.run([sys.executable, "-c", SUBREAPER], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]
