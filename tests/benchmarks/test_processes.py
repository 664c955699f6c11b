"""CPU and memory come from the processes named, and from nothing else."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from benchmarks import processes
from benchmarks.processes import Usage

SPIN = """
import sys, time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print('spun', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spinner():
    with subprocess.Popen(
        [sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield child
        child.stdin.close()


def test_cpu_and_memory_of_a_child(spinner):
    before = processes.read([])
    assert spinner.stdout.readline() == "spun\n"
    group = processes.tree(psutil.Process(spinner.pid))
    after = processes.read([*group, *group])
    assert 0.25 < after.cpu_since(before) < 5
    assert after.rss_mb > 3
    assert after.cpu_since(after) == 0


def test_a_new_process_counts_from_its_birth_and_a_reused_pid_is_a_new_process():
    names = {(1, 10.0): "one", (2, 10.0): "two", (2, 99.0): "two"}
    before = Usage({(1, 10.0): 5.0, (2, 10.0): 3.0}, names, 0)
    after = Usage({(1, 10.0): 6.0, (2, 99.0): 0.5}, names, 0)
    assert after.cpu_since(before) == 1.5
    assert after.cpu_by_name(before) == {"one": 1.0, "two": 0.5}


def test_titles_select_processes(spinner):
    group = processes.tree(psutil.Process())
    assert [process.pid for process in processes.titled(group, "'spun'")] == [spinner.pid]
    assert processes.titled(group, "no such process") == []


def test_the_dead_are_left_out():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        dead = psutil.Process(child.pid)
        child.wait()
    assert processes.read([dead]).cpu_s == {}
    assert processes.tree(dead) == []
    assert processes.titled([dead], "python") == []
