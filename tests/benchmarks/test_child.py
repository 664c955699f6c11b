"""A child is waited for, ended with all it started, and explains itself when it fails."""

from __future__ import annotations

import psutil
import pytest

from benchmarks import child

FAMILY = """
import subprocess, sys
line = sys.stdin.readline()
grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("noise", flush=True)
print("ready", line.strip(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family(tmp_path, monkeypatch) -> str:
    (tmp_path / "family.py").write_text(FAMILY)
    (tmp_path / "silent.py").write_text("import sys\nsys.stdin.read()\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such luck')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "family"


def test_nothing_of_the_family_is_left(family):
    with child.running([family], ready="ready", within_s=60, line="hello") as process:
        (grandchild,) = process.children()
        assert grandchild.is_running()
    assert not process.is_running()
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_the_environment_reaches_the_child(family):
    with child.running(
        ["family"], ready="ready", within_s=60, line="x", environment={"SEEN": "1"}
    ) as process:
        assert process.environ()["SEEN"] == "1"


def test_a_child_that_breaks_says_why(family):
    with (
        pytest.raises(child.ChildFailed, match="no such luck"),
        child.running(["broken"], ready="ready", within_s=60),
    ):
        pytest.fail("it was never ready")


def test_a_child_that_is_never_ready_is_given_up(family):
    with (
        pytest.raises(child.ChildFailed, match="silent ended, or was not ready in time"),
        child.running(["silent"], ready="ready", within_s=0.5),
    ):
        pytest.fail("it was never ready")
