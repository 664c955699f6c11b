"""The wrapper around HAProxy, with `echo` in HAProxy's place."""

from __future__ import annotations

import subprocess
from pathlib import Path

from serve_apps.cli.haproxy import write_wrapper

WRITTEN = """defaults
    option abortonclose
    option splice-request
    option splice-response
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
listen stats
  bind *:8404
"""


def test_what_ray_wrote_is_corrected_before_haproxy_reads_it(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(WRITTEN)
    wrapper = write_wrapper(tmp_path / "run" / "haproxy", "/bin/echo")
    command = [str(wrapper), "-db", "-f", str(config), "-sf", "7"]
    started = subprocess.run(command, capture_output=True, text=True, check=True)
    assert started.stdout.split() == command[1:]
    corrected = WRITTEN.replace("    option splice-request\n", "")
    corrected = corrected.replace("bind :", "bind 127.0.0.1:").replace("bind *:", "bind 127.0.0.1:")
    assert config.read_text() == corrected
