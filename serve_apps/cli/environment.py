"""The environment that every process of the system starts with. Set before `ray start`: Ray reads it once."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

MARKER = "CLUSTERGRAPH_SYSTEM"
"""Names the data directory; every process we start inherits it, which is how leftovers are known."""


def system_environment(data_dir: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of Ray and all below it."""
    environment = dict(base)
    # Compiled bytecode halves the start: some images switch it off.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.update(
        {
            MARKER: str(data_dir),
            # Keeps titles such as "ray::ServeReplica" from overwriting the environment we look for.
            "SPT_NOENV": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{base.get('PATH', os.defpath)}",
            # Functions of pipelines may be in the working directory.
            "PYTHONPATH": os.pathsep.join([*filter(None, [base.get("PYTHONPATH")]), os.getcwd()]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(ray_token_file(data_dir)),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's word for "one machine": its own ports then listen on loopback alone.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # An HAProxy that another configuration has replaced lives for as long as the longest answer.
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "660",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
    )
    return environment


def ray_token_file(data_dir: Path) -> Path:
    """The token that Ray's own ports ask for, made on first use, readable by its owner alone."""
    file = data_dir / "secrets" / "ray-token"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(file, secrets.token_hex(32))
    return file


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    os.rename(scratch, file)
