"""Requests a second and CPU a request through the gateway, beside what the framework alone does and beside
other gateways.

    peer      FastAPI ingress and one handle hop in Ray Serve, nothing else: the floor of the framework
    local     our gateway, over a handle to the fake engine
    remote    our gateway, to the mock upstream as a remote pool
    kept      our gateway, answering what it has answered before
    refused   our gateway, to a call that its caller's quota does not hold
    ray_llm   ray.serve.llm's own OpenAI ingress, over a handle to a server that answers at once
    upstream  the mock upstream alone, no gateway: the floor of the load generator

and `other_gateways`, to the same upstream. All of Ray's are applications of one Ray Serve behind one HAProxy.
Only ours authenticate, reserve quota, meter, settle and account. The models cost next to nothing, so what is
measured is what stands in front of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import msgspec
import psutil

from benchmarks import deployed, other_gateways, processes
from benchmarks.deployed import question
from benchmarks.scenario import Arm, Goal, HttpRequest, Load, Options
from benchmarks.serve_host import App
from cluster.config import FakeSpec, OpenAISpec
from serve_apps.gateway.limits import Limits
from serve_apps.settings import Settings, load_settings

CONFIG = deployed.ROOT / "configs" / "gateway.yaml"
HTTP_PORT = 18000
UPSTREAM_PORT = 18081
OTHERS_FROM = 18090
PORTS_FROM = 18100

CHAT = Load("chat", connections=32)
STREAM = Load("stream", connections=16)
"""Twenty chunks."""
ALONE = Load("stream alone", connections=1)
"""Where a packet that waits for the acknowledgement of the last one (Nagle) shows as 40 ms."""

LOADS = (CHAT, STREAM, ALONE)
OURS = ("local", "remote", "kept", "refused")
PEERS = {
    "peer": App("peer", "/peer", "benchmarks.peer:build"),
    "ray_llm": App("ray-llm", "/ray-llm", "benchmarks.ray_llm_peer:build"),
}
PEER_MODELS = {"peer": "mock", "ray_llm": "fake"}
DESCRIBED = {
    "peer": "bare FastAPI ingress and one handle hop; no keys, no quotas",
    "ray_llm": "ray.serve.llm's OpenAiIngress over a server that answers at once; no keys, no quotas",
}


class GatewayScenario:
    """Implements `Scenario`."""

    loads: tuple[Load, ...] = LOADS
    arm_names: tuple[str, ...] = ("peer", *OURS, "ray_llm", *other_gateways.GATEWAYS, "upstream")
    baseline = "peer"
    subjects: tuple[str, ...] = OURS
    goals: tuple[Goal, ...] = (
        Goal("chat", "kept", "cpu_ms_per_request", "<=", 0.4),
        Goal("chat", "refused", "cpu_ms_per_request", "<=", 1.0),
        Goal("chat", "remote", "cpu_ms_per_request", "<=", 0.7),
        Goal("chat", "local", "requests_per_s", ">=", 0.8, "ratio", "peer"),
        Goal("chat", "local", "requests_per_s", ">=", 1.5, "ratio", "ray_llm"),
        Goal("stream alone", "remote", "latency_p50_ms", "<=", 40.0),
        Goal("stream alone", "local", "latency_p50_ms", "<=", 40.0),
    )
    notes: tuple[str, ...] = (
        "LiteLLM is not run here: releases of it were compromised in 2026. Its documentation tells of 1,170 "
        "requests/s on four instances of four CPUs each, in front of a fake endpoint "
        "(docs.litellm.ai/docs/benchmarks): 73 requests/s for each CPU.",
    )

    def __init__(self, options: Options) -> None:
        self._wanted = options.arms or self.arm_names
        self._config = options.config or CONFIG

    @contextmanager
    def started(self) -> Iterator[list[Arm]]:
        """Raises `ChildFailed` when a server does not come up, `ConfigError` for a config that cannot be."""
        with ExitStack() as stack:
            upstream = stack.enter_context(deployed.upstream(UPSTREAM_PORT))
            arms = {"upstream": _upstream_arm(upstream)}
            for number, (name, gateway) in enumerate(other_gateways.GATEWAYS.items()):
                if name in self._wanted:
                    run = other_gateways.running(gateway, OTHERS_FROM + number, UPSTREAM_PORT, _requests)
                    arms[name] = stack.enter_context(run)
            apps = [app for name, app in PEERS.items() if name in self._wanted]
            ours = any(name in OURS for name in self._wanted)
            settings = load_settings(self._config)
            if ours:
                stack.enter_context(deployed.store_of(settings))
                apps.append(deployed.gateway_app(self._config))
            if apps:
                host = stack.enter_context(deployed.serve(apps, HTTP_PORT, PORTS_FROM))
                arms |= {name: _peer_arm(name, host) for name in PEERS}
                if ours:
                    arms |= _our_arms(host, settings)
            yield [arms[name] for name in self.arm_names if name in self._wanted]


def _requests(
    port: int, prefix: str, model: str, headers: Mapping[str, str], loads: tuple[Load, ...] = LOADS
) -> dict[str, HttpRequest]:
    """The same question for all loads, streamed for all but the first."""
    return {
        load.name: question(port, model, stream=load is not CHAT, prefix=prefix, headers=headers)
        for load in loads
    }


def _upstream_arm(upstream: psutil.Process) -> Arm:
    return Arm(
        "upstream",
        "the mock upstream alone, no gateway",
        _requests(UPSTREAM_PORT, "", "mock", {}),
        lambda: processes.tree(upstream),
    )


def _peer_arm(name: str, host: psutil.Process) -> Arm:
    app = PEERS[name]
    return Arm(
        name,
        DESCRIBED[name],
        _requests(HTTP_PORT, app.route_prefix, PEER_MODELS[name], {}, (CHAT, STREAM)),
        lambda: deployed.serving(host, f"ServeReplica:{app.name}:"),
    )


def _our_arms(host: psutil.Process, settings: Settings) -> dict[str, Arm]:
    """Raises `StopIteration` for a config without a fake or a remote model."""
    key = deployed.with_key(deployed.new_key(settings))
    poor = deployed.with_key(deployed.new_key(settings, Limits(tokens_per_minute=1)))
    local = next(spec.name for spec in settings.models if isinstance(spec, FakeSpec))
    remote = next(spec.name for spec in settings.models if isinstance(spec, OpenAISpec))
    kept = deployed.answered_before(question(HTTP_PORT, remote, headers=key))
    refused = msgspec.structs.replace(
        question(HTTP_PORT, remote, headers=poor), status=429, must_contain="request_exceeds_limit"
    )
    alone = deployed.working(host, settings)
    return {
        "local": Arm(
            "local",
            "our gateway over a handle to the fake engine; keys, quotas, metering, accounts on",
            _requests(HTTP_PORT, "", local, key),
            deployed.working(host, settings, local),
        ),
        "remote": Arm(
            "remote",
            "our gateway to the mock upstream as a remote pool; keys, quotas, metering, accounts on",
            _requests(HTTP_PORT, "", remote, key),
            alone,
        ),
        "kept": Arm("kept", "our gateway, answering what it has answered before", {CHAT.name: kept}, alone),
        "refused": Arm(
            "refused", "our gateway, to a call that exceeds its quota", {CHAT.name: refused}, alone
        ),
    }
