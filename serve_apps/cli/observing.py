"""Asks the cluster that runs what it is and what it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from cluster.errors import ClusterError
from cluster.live import Observed
from serve_apps.cli.environment import system_environment

GCS_PORT = 6380
"""Of the Ray that `clustergraph up` starts. Not Ray's own 6379, which a Redis of yours may hold."""
TIMEOUT_S = 120.0
_LINES = 5


class NotObserved(ClusterError):
    """The cluster that runs could not be asked."""


def observe(data_dir: Path, address: str | None) -> Observed:
    """The cluster at an address or, without one, that of `clustergraph up` on that data directory.

    Raises `NotObserved` that says why.
    """
    environment = dict(os.environ) if address else system_environment(data_dir, os.environ)
    command = [sys.executable, "-m", "serve_apps.observe", address or f"127.0.0.1:{GCS_PORT}"]
    try:
        done = subprocess.run(  # noqa: S603  (our own module)
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotObserved(f"the cluster did not answer within {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_LINES:])
        raise NotObserved(f"the cluster could not be asked: {said}")
    return msgspec.json.decode(done.stdout, type=Observed)
