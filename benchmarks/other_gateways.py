"""Other gateways, each in front of the same mock upstream as ours, on its own defaults.

    vllm_router, sglang_router   Rust, from their Python wheels: routing and health checks, no keys
    tensorzero                   Rust, from its Python wheel: decodes, validates and encodes again; no keys
    portkey                      Node, from npm: decodes and encodes again; no keys of its own

They live in `.venv-peers`, which `scripts/peers` makes. One that is not there, does not start or answers
wrongly becomes an arm without the requests in question that says so.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import IO, NamedTuple

import psutil

from benchmarks import processes
from benchmarks.scenario import Arm, HttpRequest

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv-peers"
PYTHON = VENV / "bin" / "python"
PORTKEY = VENV / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
READY_WITHIN_S = 60.0
PAUSE_S = 0.2
TAIL = 300
"""Characters of the last words of one that does not start."""
_PORT = re.compile(r"listening on (\d+)")

Ask = Callable[[int, str, str, Mapping[str, str]], dict[str, HttpRequest]]
"""The requests of all loads: given a port, a path before `/v1`, a model and headers."""


class Gateway(NamedTuple):
    """How one is started and asked."""

    name: str
    describe: str
    needs: Path
    """Of its files."""
    command: Callable[[int, int], Sequence[str]]
    """Given its port and that of the upstream."""
    prefix: str = ""
    model: str = "mock"
    headers: Callable[[int], Mapping[str, str]] = lambda _: {}
    """Given the port of the upstream."""
    picks_its_port: bool = False
    """Whether it says `listening on PORT` and takes none."""


def _site(package: str) -> Path:
    return next(VENV.glob(f"lib/python3*/site-packages/{package}"), VENV / package)


def _router(module: str, log_level: str) -> Callable[[int, int], Sequence[str]]:
    return lambda port, upstream: [
        *(str(PYTHON), "-m", module, "--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"),
        *("--prometheus-port", str(port + 1000), "--log-level", log_level),
    ]


GATEWAYS: Mapping[str, Gateway] = {
    each.name: each
    for each in (
        Gateway(
            "vllm_router",
            "vllm-router (Rust) to the mock upstream; no keys, no quotas",
            _site("vllm_router"),
            _router("vllm_router.launch_router", "warning"),
        ),
        Gateway(
            "sglang_router",
            "sglang-router (Rust) to the mock upstream; no keys, no quotas",
            _site("sglang_router"),
            _router("sglang_router.launch_router", "warn"),
        ),
        Gateway(
            "tensorzero",
            "TensorZero (Rust, within Python) to the mock upstream; no keys, no quotas, keeps nothing",
            _site("tensorzero"),
            lambda _, upstream: [
                *(str(PYTHON), "-m", "benchmarks.tensorzero_peer", f"http://127.0.0.1:{upstream}/v1")
            ],
            prefix="/openai",
            model="tensorzero::model_name::mock",
            picks_its_port=True,
        ),
        Gateway(
            "portkey",
            "Portkey (Node) to the mock upstream; no keys, no quotas",
            PORTKEY,
            lambda port, _: [which("node") or "node", str(PORTKEY), f"--port={port}", "--headless"],
            headers=lambda upstream: {
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
                "Authorization": "Bearer none",
            },
        ),
    )
}


@contextmanager
def running(gateway: Gateway, port: int, upstream: int, ask: Ask) -> Iterator[Arm]:
    """The gateway as an arm; one without requests where it cannot be measured."""
    if not gateway.needs.exists():
        yield _absent(gateway, "it is not installed: run scripts/peers")
        return
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            gateway.command(port, upstream),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if gateway.picks_its_port else errors,
            stderr=errors,
            text=True,
        )
        server = psutil.Process(process.pid)
        try:
            taken = _said_port(process.stdout) if process.stdout is not None else port
            requests = ask(taken, gateway.prefix, gateway.model, gateway.headers(upstream))
            late = _wait_for(process, next(iter(requests.values())))
            if late:
                errors.seek(0)
                yield _absent(gateway, f"{late}; {errors.read()[-TAIL:].strip()}")
            else:
                yield _arm(gateway, requests, server)
        finally:
            for each in reversed(processes.tree(server)):
                each.kill()
            process.communicate()


def _arm(gateway: Gateway, requests: Mapping[str, HttpRequest], server: psutil.Process) -> Arm:
    """With the loads that it can answer."""
    wrong = {load: why for load, request in requests.items() if (why := _asked(request))}
    return Arm(
        gateway.name,
        "; ".join((gateway.describe, *(f"not measured under {load}: {why}" for load, why in wrong.items()))),
        {load: request for load, request in requests.items() if load not in wrong},
        lambda: processes.tree(server),
        of_others=True,
    )


def _absent(gateway: Gateway, why: str) -> Arm:
    return Arm(gateway.name, f"{gateway.describe}: not measured, for {why}", {}, list, of_others=True)


def _said_port(lines: IO[str]) -> int:
    """0 where it ends without having said any."""
    found = (match for line in lines if (match := _PORT.search(line)) is not None)
    return next((int(match[1]) for match in found), 0)


def _wait_for(process: subprocess.Popen[str], request: HttpRequest) -> str:
    """Waits until the request is answered well. Else what came last."""
    until, last = time.monotonic() + READY_WITHIN_S, "it did not start"
    while process.poll() is None and time.monotonic() < until:
        last = _asked(request)
        if not last:
            return ""
        time.sleep(PAUSE_S)
    return last


def _asked(request: HttpRequest) -> str:
    """What is wrong with the answer; nothing where it is the expected one."""
    connection = http.client.HTTPConnection(request.host, request.port, timeout=10)
    headers = {"Content-Type": "application/json", **request.headers}
    try:
        connection.request("POST", request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status == request.status and request.must_contain in body:
        return ""
    return f"it answered {answer.status}: {body[:TAIL]}"
