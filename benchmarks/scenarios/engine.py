"""Tokens a second and the time to the first one, with a real engine behind the gateway and without a gateway.

    bare     vLLM itself, in a process of its own
    gateway  ours, over a handle to the same engine on the same cores: keys, quotas, metering, accounts on

Two engines of one spec, of which one works at a time. Every request is of `OUTPUT_TOKENS` tokens, so requests
a second are tokens a second divided by that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from benchmarks import child, deployed, processes
from benchmarks.scenario import Arm, Goal, HttpRequest, Load, Options
from cluster.config import VllmSpec
from cluster.models import prepare
from serve_apps.settings import load_settings

CONFIG = deployed.ROOT / "configs" / "engine.yaml"
HTTP_PORT = 18600
BARE_PORT = 18681
PORTS_FROM = 18700
START_TIMEOUT_S = 240
OUTPUT_TOKENS = 32

STREAMS = Load("16 streams", connections=16)


class EngineScenario:
    """Implements `Scenario`."""

    loads: tuple[Load, ...] = (STREAMS,)
    arm_names: tuple[str, ...] = ("bare", "gateway")
    baseline = "bare"
    subjects: tuple[str, ...] = ("gateway",)
    goals: tuple[Goal, ...] = (
        Goal(STREAMS.name, "gateway", "requests_per_s", ">=", 0.97, "ratio", "bare"),
        Goal(STREAMS.name, "gateway", "first_byte_p50_ms", "<=", 20.0, "difference", "bare"),
    )
    notes: tuple[str, ...] = (
        f"A request has {OUTPUT_TOKENS} tokens: requests/s times that are tokens/s. The first byte is of "
        "the first token. The engine computes on all cores, which it shares with load and gateway.",
    )

    def __init__(self, options: Options) -> None:
        self._wanted = options.arms or self.arm_names
        self._config = options.config or CONFIG

    @contextmanager
    def started(self) -> Iterator[list[Arm]]:
        """Raises `ChildFailed` when an engine does not come up, `StopIteration` for a config without vLLM."""
        settings = load_settings(self._config)
        spec = next(spec for spec in settings.models if isinstance(spec, VllmSpec))
        prepare(spec.source, settings.data_dir)
        with ExitStack() as stack:
            arms = []
            if "bare" in self._wanted:
                command = ["benchmarks.bare_engine", str(self._config), spec.name, str(BARE_PORT)]
                bare = stack.enter_context(
                    child.running(command, ready="listening", within_s=START_TIMEOUT_S)
                )
                requests = {STREAMS.name: _request(BARE_PORT, spec.name)}
                arms.append(
                    Arm("bare", "vLLM alone, behind raw HTTP", requests, lambda: processes.tree(bare))
                )
            if "gateway" in self._wanted:
                ours = deployed.gateway(self._config, settings, HTTP_PORT, PORTS_FROM)
                host, key = stack.enter_context(ours)
                arms.append(
                    Arm(
                        "gateway",
                        "our gateway over a handle to vLLM; keys, quotas, metering, accounts on",
                        {STREAMS.name: _request(HTTP_PORT, spec.name, key)},
                        deployed.working(host, settings, spec.name),
                    )
                )
            yield arms


def _request(port: int, model: str, headers: dict[str, str] | None = None) -> HttpRequest:
    asked = deployed.question(port, model, stream=True, headers=headers, max_tokens=OUTPUT_TOKENS)
    body = {**json.loads(asked.body), "ignore_eos": True, "temperature": 0}
    return msgspec.structs.replace(asked, body=json.dumps(body).encode(), must_contain="[DONE]")
