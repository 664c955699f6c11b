"""What more replicas of the gateway bring: requests a second of all, and CPU of a request.

    one, two, four   so many replicas, to the mock upstream as a remote pool

Deployments of their own, each with its store, of which one works at a time. `four` wants 8 cores. Where the
cores are few, requests a second cannot grow, for load generator, upstream, HAProxy and store need them too:
then it is CPU of a request that says whether another replica makes a call dearer for the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import yaml

from benchmarks import deployed
from benchmarks.scenario import Arm, Goal, Load, Options
from cluster.config import OpenAISpec
from serve_apps.settings import load_settings

CONFIG = deployed.ROOT / "configs" / "gateway.yaml"
COUNTS = {"one": 1, "two": 2, "four": 4}
CORES_A_REPLICA = 2
UPSTREAM_PORT = 18081
HTTP_PORT = 18050
PORTS_FROM = 18800
PORTS_OF_ONE = 300

CHAT = Load("chat", connections=32)


class ReplicasScenario:
    """Implements `Scenario`."""

    loads: tuple[Load, ...] = (CHAT,)
    arm_names: tuple[str, ...] = tuple(COUNTS)
    baseline = "one"
    subjects: tuple[str, ...] = arm_names
    goals: tuple[Goal, ...] = (Goal("chat", "two", "cpu_ms_per_request", "<=", 1.1, "ratio", "one"),)
    notes: tuple[str, ...] = (
        "Load generator, upstream, HAProxy and store take their share of the same cores: where these are all "
        "busy with one replica already, a second adds no requests/s, and CPU a request tells what it would.",
    )

    def __init__(self, options: Options) -> None:
        self._wanted = options.arms or self.arm_names
        self._config = options.config or CONFIG

    @contextmanager
    def started(self) -> Iterator[list[Arm]]:
        """Raises `ChildFailed` when a server does not come up, `ConfigError` for a config that cannot be."""
        cores = psutil.cpu_count() or 1
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cgr-")))
            stack.enter_context(deployed.upstream(UPSTREAM_PORT))
            arms = []
            for number, name in enumerate(self._wanted):
                if COUNTS[name] > 2 and cores < COUNTS[name] * CORES_A_REPLICA:
                    arms.append(Arm(name, f"not measured, for this machine has {cores} cores", {}, list))
                else:
                    arms.append(self._arm(stack, name, folder / name, number))
            yield arms

    def _arm(self, stack: ExitStack, name: str, folder: Path, number: int) -> Arm:
        folder.mkdir()
        config = folder / "deploy.yaml"
        told = yaml.safe_load(self._config.read_text())
        told["data_dir"] = str(folder / "data")
        told["gateway"]["replicas"] = COUNTS[name]
        config.write_text(yaml.safe_dump(told))
        settings = load_settings(config)
        port = HTTP_PORT + number
        ours = deployed.gateway(config, settings, port, PORTS_FROM + number * PORTS_OF_ONE)
        host, key = stack.enter_context(ours)
        remote = next(spec.name for spec in settings.models if isinstance(spec, OpenAISpec))
        return Arm(
            name,
            f"{COUNTS[name]} replica(s) of our gateway to the mock upstream; keys, quotas, accounts on",
            {CHAT.name: deployed.question(port, remote, headers=key)},
            deployed.working(host, settings),
        )
