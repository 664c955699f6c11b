"""Requests a second and CPU a request through the gateway, beside what the framework alone does.

    peer      FastAPI ingress and one handle hop in Ray Serve, nothing else: the floor of the framework
    local     our gateway, over a handle to the fake engine
    remote    our gateway, to the mock upstream as a remote pool
    upstream  the mock upstream alone, no gateway: the floor of the load generator

`peer`, `local` and `remote` are applications of one Ray Serve behind one HAProxy. `local` and `remote`
authenticate, reserve quota, route and settle; `peer` does none of it. The models cost next to nothing, so
what is measured is what stands in front of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil

from benchmarks import child, processes
from benchmarks.scenario import Arm, HttpRequest, Load, Options
from benchmarks.serve_host import READY, App, HostPlan, environment

HTTP_PORT = 18000
UPSTREAM_PORT = 18081
PORTS_FROM = 18100
START_TIMEOUT_S = 180

CHAT = Load("chat", connections=32)
STREAM = Load("stream", connections=16)
"""Twenty chunks."""
PROMPT = "Say twenty words about serving models on a cluster, in the tone of a harbour pilot."


class GatewayScenario:
    """Implements `Scenario`."""

    loads: tuple[Load, ...] = (CHAT, STREAM)
    arm_names: tuple[str, ...] = ("peer", "upstream")
    baseline = "peer"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._wanted = options.arms or self.arm_names

    @contextmanager
    def started(self) -> Iterator[list[Arm]]:
        """Raises ChildFailed when a server does not come up."""
        with ExitStack() as stack:
            upstream = stack.enter_context(
                child.running(
                    ["benchmarks.mock_upstream", "--port", str(UPSTREAM_PORT)], ready="listening", within_s=30
                )
            )
            arms = [_upstream_arm(upstream)]
            apps = [App("peer", "/peer", "benchmarks.peer:build")] if "peer" in self._wanted else []
            if apps:
                host = stack.enter_context(_serve(apps))
                arms = [_peer_arm(host), *arms]
            yield [arm for arm in arms if arm.name in self._wanted]


def _upstream_arm(upstream: psutil.Process) -> Arm:
    return Arm(
        "upstream",
        "the mock upstream alone, no gateway",
        _requests(UPSTREAM_PORT, "/v1/chat/completions", "mock", "word19"),
        lambda: processes.tree(upstream),
    )


def _peer_arm(host: psutil.Process) -> Arm:
    return Arm(
        "peer",
        "bare FastAPI ingress and one handle hop, no keys, no quotas",
        _requests(HTTP_PORT, "/peer/v1/chat/completions", "mock", "word19"),
        lambda: _serving(host, "ServeReplica:peer:"),
    )


def _serving(host: psutil.Process, *titles: str) -> list[psutil.Process]:
    """The replicas with these titles, and HAProxy, which works for the arm that is measured alone."""
    return processes.titled(processes.tree(host), "bin/haproxy", *titles)


def _requests(
    port: int, path: str, model: str, must_contain: str, headers: dict[str, str] | None = None
) -> dict[str, HttpRequest]:
    """The same question for both loads, one of them streamed."""
    made = {}
    for load, stream in ((CHAT, False), (STREAM, True)):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 20,
            "stream": stream,
        }
        made[load.name] = HttpRequest(
            "127.0.0.1", port, path, json.dumps(body).encode(), headers or {}, must_contain
        )
    return made


@contextmanager
def _serve(apps: list[App]) -> Iterator[psutil.Process]:
    """The applications on a Ray instance of their own; the process that everything hangs from."""
    with tempfile.TemporaryDirectory(prefix="cgb-", ignore_cleanup_errors=True) as temp:
        plan = HostPlan(temp, HTTP_PORT, apps)
        with child.running(
            ["benchmarks.serve_host"],
            ready=READY,
            within_s=START_TIMEOUT_S,
            line=msgspec.json.encode(plan).decode(),
            environment=environment(Path(temp), PORTS_FROM),
        ) as host:
            yield host
