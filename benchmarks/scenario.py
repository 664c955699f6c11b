"""What a scenario is: arms to compare, and loads to put on each of them.

    Scenario ──started()──► Arm (where to send, whose CPU to count)
       └─────loads────────► Load (over how many connections)

Every arm gets every load that it has a request for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import psutil


class Load(msgspec.Struct, frozen=True):
    """A closed loop: `connections` clients, each sending its next request when the last is answered."""

    name: str
    connections: int


class HttpRequest(msgspec.Struct, frozen=True):
    """The one request that a load repeats."""

    host: str
    port: int
    path: str
    body: bytes
    headers: dict[str, str] = {}
    must_contain: str = ""
    """Every answer has to hold this text, or it counts as failed: a fast error is no result."""
    status: int = 200
    """Of every answer."""


class Arm(msgspec.Struct, frozen=True):
    """One of the things compared."""

    name: str
    describe: str
    """One line for the reader of the report."""
    requests: dict[str, HttpRequest]
    """By the load's name. Empty for an arm that could not be started: `describe` says why."""
    processes: Callable[[], list[psutil.Process]]
    """The server processes that work for this arm: their CPU and memory are what a request costs."""
    of_others: bool = False
    """Whether it is not ours to repair: what it cannot answer is reported, and ends no run."""


class Goal(msgspec.Struct, frozen=True):
    """What a figure of an arm has to reach."""

    load: str
    arm: str
    figure: str
    """A field of `runner.Sample`."""
    sign: Literal[">=", "<="]
    limit: float
    compared: Literal["itself", "ratio", "difference"] = "itself"
    """With `against`. What a request costs in itself is taken from the best repeat, for what the machine's
    other users add is no cost of ours; what is compared falls on both, and is the median over the repeats."""
    against: str = ""
    """Another arm under the same load."""


class Options(msgspec.Struct, frozen=True):
    """What the command line says; a scenario reads what concerns it."""

    arms: tuple[str, ...] = ()
    """Names of the arms to start. Empty: all of them."""
    config: Path | None = None
    """Deploy config of the system under test, for scenarios that deploy it. None: the scenario's own."""
    cases: tuple[str, ...] = ()
    """Beginnings of the names of the cases to measure. Empty: all of them."""
    fake: bool = False
    """Whether a scripted engine takes the place of the real one: seconds in place of minutes, and no figures
    of an engine."""


class Scenario(Protocol):
    """A named comparison. Made once with the options, started once, measured, stopped."""

    loads: tuple[Load, ...]
    arm_names: tuple[str, ...]
    """All arms it knows."""
    baseline: str
    """The arm that ratios are taken against."""
    subjects: tuple[str, ...]
    """The arms that are ours."""
    goals: tuple[Goal, ...]
    """What its figures have to reach."""
    notes: tuple[str, ...]
    """Sentences that its report says besides."""

    def __init__(self, options: Options) -> None: ...

    def started(self) -> AbstractContextManager[list[Arm]]:
        """Start the arms, all in one session; stop every process again on leaving."""
        ...
