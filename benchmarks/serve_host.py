"""One Ray instance with Ray Serve on it, for the time of a scenario, in a process of its own.

Ray Serve reads its environment once, at import, and Ray's processes hang from the driver that started
them: so the driver is a child process with the right environment, which reads a `HostPlan` as a line of
JSON, writes the line `ready` when every application answers, and stops all it started at the end of its
standard input.
"""

from __future__ import annotations

import os
import secrets
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray import serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

READY = "ready"


class App(msgspec.Struct, frozen=True):
    """One Serve application."""

    name: str
    route_prefix: str
    builder: str
    """`module:function`, as in a Serve config file's `import_path`."""
    args: dict[str, str] = {}
    """Handed to the builder, as the model that its parameter is annotated with."""


class HostPlan(msgspec.Struct, frozen=True):
    """What to run, and where."""

    temp_dir: str
    """Ray's own files. Short: Unix sockets live under it, and their paths hold at most 107 bytes."""
    http_port: int
    apps: list[App]


def environment(temp_dir: Path, ports_from: int) -> dict[str, str]:
    """The variables a host process must be started with; creates the cluster's token under `temp_dir`.

    `ports_from` and the few hundred after it are taken for HAProxy's metrics and statistics, and for the
    replicas that HAProxy talks to. Everything is away from the defaults, so that a deployment on this
    machine is not disturbed.
    """
    token = temp_dir / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    haproxy = temp_dir / "haproxy"
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports_from),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports_from + 1),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports_from + 2),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports_from + 3),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports_from + 100),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports_from + 199),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports_from + 200),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports_from + 299),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
    }


def application(app: App) -> Any:
    """Import the builder and call it as `serve run` would.

    Raises ImportError or AttributeError with the name at fault, and whatever the builder raises.
    """
    module, _, function = app.builder.partition(":")
    builder = getattr(import_module(module), function)
    return call_user_app_builder_with_args_if_necessary(builder, app.args)


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=HostPlan)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=plan.temp_dir,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": plan.http_port})
        for app in plan.apps:
            serve.run(application(app), name=app.name, route_prefix=app.route_prefix)
        print(READY, flush=True)
        sys.stdin.read()
    finally:
        # Serve first: killing Ray under it would leave HAProxy behind.
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
