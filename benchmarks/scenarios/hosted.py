"""Scenarios whose cases are measured by a process of their own (`case_host`), on a Ray of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import msgspec

from benchmarks.case_host import Broke, Done, Order, Took
from benchmarks.cases import CaseSample, Described
from benchmarks.runner import MeasurementFailed
from benchmarks.scenario import Options
from benchmarks.serve_host import environment

ROOT = Path(__file__).parents[2]
HOST = "benchmarks.case_host"
PORTS_FROM = 18500
WITHOUT_INGRESS = {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
"""With HAProxy, Serve takes the one deployment of an application for its ingress, and refuses it a router of
its own, which our pools have."""
TAIL = 3000
"""Characters of what the host last said that are shown when it fails."""


class Hosted:
    """Implements `CaseScenario`."""

    name: ClassVar[str]
    """Among `case_host.MEASURES`."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        """Raises `MeasurementFailed`."""
        with tempfile.TemporaryDirectory(prefix="cgb-", ignore_cleanup_errors=True) as temp:
            order = Order(self.name, repeats, self._options.cases, self._options.fake, temp)
            variables = {} if order.fake else environment(Path(temp), PORTS_FROM) | WITHOUT_INGRESS
            return _told(order, variables, progress)


def _told(
    order: Order, variables: dict[str, str], progress: Callable[[CaseSample], None]
) -> tuple[list[Described], list[CaseSample]]:
    samples: list[CaseSample] = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", HOST],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as host,
    ):
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(msgspec.json.encode(order) + b"\n")
        host.stdin.close()
        for line in host.stdout:
            if not line.startswith(b'{"type":'):
                continue  # Ray's own
            said = msgspec.json.decode(line, type=Took | Done | Broke)
            if isinstance(said, Done):
                return said.cases, samples
            if isinstance(said, Broke):
                raise MeasurementFailed(said.traceback)
            samples.append(said.sample)
            progress(said.sample)
        host.wait()
        errors.seek(0)
        raise MeasurementFailed(f"{HOST} ended before it was done\n{errors.read()[-TAIL:]}")
