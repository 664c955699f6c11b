"""The mock upstream as a real process, on a port of its own choosing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def upstream_port():
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.mock_upstream", "--port", "0"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield int(server.stdout.readline().removeprefix("listening on "))
        server.stdin.close()
        assert server.wait(10) == 0
