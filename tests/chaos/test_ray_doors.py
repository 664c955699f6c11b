"""Row 18: Ray's dashboard, job ports and control store, by whoever has not its token.

Every path that tells or does something, with no token, a wrong one, an empty one, and a key of the gateway in
its place. All must be refused, and nothing of what was asked for may have happened.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import httpx
import psutil

from serve_apps.cli.environment import ray_token_file
from serve_apps.cli.observing import GCS_PORT
from tests.chaos.cluster import APPLICATIONS, Cluster
from tests.chaos.figures import report
from tests.e2e.system import RunningSystem

DASHBOARD = "http://127.0.0.1:8265"
JOB = {"entrypoint": "touch /tmp/clustergraph-was-here"}
PATHS = (
    *("/api/jobs/", "/api/jobs/1", "/api/jobs/1/logs", "/api/packages/gcs/x.zip", "/api/cluster_status"),
    *("/api/serve/applications/", "/api/v0/actors", "/api/v0/tasks", "/api/v0/nodes", "/api/v0/workers"),
    *("/api/v0/jobs", "/api/v0/logs", "/api/v0/logs/file", "/api/v0/objects", "/api/v0/runtime_envs"),
    *("/api/v0/placement_groups", "/api/component_activities", "/api/ray/version", "/api/version"),
    *("/nodes", "/logical/actors", "/events", "/worker/traceback", "/worker/cpu_profile", "/memory_profile"),
    *("/task/traceback", "/api/prometheus/sd", "/cluster_id", "/usage_stats_enabled", "/test/dump"),
    *("/static/../api/jobs/", "/static/%2e%2e/api/jobs/", "/static/..%2fapi/jobs/", "//api/jobs/"),
)
DEEDS = (
    *(("POST", path) for path in ("/api/jobs/", "/api/jobs/1/stop", "/api/task_events", "/report_events")),
    *(("PUT", path) for path in ("/api/serve/applications/", "/api/packages/gcs/x.zip")),
    *(("DELETE", path) for path in ("/api/serve/applications/", "/api/jobs/1")),
)
AGENT = (
    *(("GET", path) for path in ("/api/job_agent/jobs/1/logs", "/api/job_agent/jobs/1/logs/tail")),
    *(("POST", path) for path in ("/api/job_agent/jobs/", "/api/job_agent/jobs/1/stop")),
    ("DELETE", "/api/job_agent/jobs/1"),
)
METHODS = (
    *("NodeInfoGcsService/GetAllNodeInfo", "JobInfoGcsService/GetAllJobInfo", "JobInfoGcsService/AddJob"),
    *("ActorInfoGcsService/GetAllActorInfo", "ActorInfoGcsService/KillActorViaGcs"),
    *("InternalKVGcsService/InternalKVGet", "InternalKVGcsService/InternalKVPut"),
    *("InternalKVGcsService/InternalKVDel", "NodeInfoGcsService/DrainNode"),
    "PlacementGroupInfoGcsService/GetAllPlacementGroup",
)
REFUSED = (401, 403)


def _tokens(system: RunningSystem, key: str) -> Iterator[dict[str, str]]:
    """Headers of those who have not the token."""
    right = ray_token_file(system.settings.data_dir).read_text()
    yield {}
    for wrong in ("", "x" * 64, right[:-1], right + "0", right.upper(), key):
        yield {"authorization": f"Bearer {wrong}".rstrip()}
        yield {"x-ray-authorization": f"Bearer {wrong}".rstrip()}
        yield {"cookie": f"ray-authentication-token={wrong}"}
    yield {"authorization": right}
    yield {"authorization": f"Basic {right}"}


def _raw(url: str, method: str, path: str, headers: dict[str, str]) -> int:
    """The status of a request whose path is sent as it stands."""
    host, _, port = url.removeprefix("http://").partition(":")
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close", "content-length: 0"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


def _agent(system: RunningSystem) -> str:
    """Where the agent takes jobs, which answers there as the dashboard does."""
    for process in system.processes():
        for connection in process.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr.port == 8265:
                continue
            url = f"http://127.0.0.1:{connection.laddr.port}"
            try:
                if httpx.get(f"{url}/api/local_raylet_healthz", timeout=2).text == "success":
                    return url
            except httpx.HTTPError:
                continue
    raise AssertionError("no agent was found")


def _grpc(method: str, headers: dict[str, str]) -> bool:
    """Whether the control store refuses the call."""
    metadata = tuple((name, value) for name, value in headers.items() if name == "authorization")
    with grpc.insecure_channel(f"127.0.0.1:{GCS_PORT}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def test_nobody_without_the_token_comes_in(system: RunningSystem, cluster: Cluster) -> None:
    key, _ = system.key()
    agent = _agent(system)
    before = cluster.application()["deployments"].keys()
    asked, let_in = 0, []
    for headers in _tokens(system, key):
        doors = [
            *((DASHBOARD, "GET", path) for path in PATHS),
            *((DASHBOARD, *deed) for deed in DEEDS),
            *((agent, *deed) for deed in AGENT),
        ]
        for url, method, path in doors:
            status = _raw(url, method, path, headers)
            asked += 1
            if status not in REFUSED:
                let_in.append((url, method, path, status, sorted(headers)))
        for method in METHODS:
            asked += 1
            if not _grpc(method, headers):
                let_in.append(("control store", "gRPC", method, 0, sorted(headers)))
    report(18, "Ray's ports without its token", asked=asked, let_in=len(let_in))
    assert let_in == []
    assert cluster.application()["deployments"].keys() == before
    right = {"authorization": f"Bearer {ray_token_file(system.settings.data_dir).read_text()}"}
    assert httpx.get(APPLICATIONS, headers=right, timeout=30).status_code == 200, "the right one opens"
