"""What the policy is told: once of the application, and again and again of what is going on in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

CALLS, ENDED, SECONDS = "calls", "ended", "seconds"
"""Counters of a replica, since it started: calls that came, those that its engine has ended, and how long the
engine had them, together. Of the runner: runs."""


def begun(graph: str) -> str:
    """The runner's counter of the runs of a graph that began."""
    return f"begun {graph}"


def running(graph: str) -> str:
    """The number of runs of a graph that go on in a replica of the runner."""
    return f"running {graph}"


class PoolScale(msgspec.Struct, frozen=True, omit_defaults=True):
    """A deployment whose replicas come and go."""

    least: int
    most: int
    at_once: float
    """Calls that one replica works on at the same time."""
    seconds: float
    """That a call takes in it, before any was measured: the plan's estimate."""
    per_hour: float = 0.0
    """Dollars, of one replica. 0 where nothing is known: then it gives way to no budget."""


class Scaling(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of an application that scales. Of plain types alone, for the config file of Serve."""

    pools: dict[str, PoolScale]
    """By name of the deployment."""
    runner: str
    """The deployment that runs the graphs, which need not scale itself."""
    paths: dict[str, dict[str, float]]
    """By graph: how often one run visits each pool on its path, the runner included."""
    wait_s: float
    """What a run, or a call from elsewhere, should wait for replicas in all,"""
    in_time: float
    """in this share of cases."""
    down_after_s: float
    """For how long less must be enough before there is less."""
    zero_after_s: float
    """For how long nothing must have come before there is none."""
    max_per_hour: float | None = None
    """Dollars, of all pools together."""


class Seen(NamedTuple):
    """A pool at one moment."""

    replicas: int
    """That it is meant to have."""
    running: int
    """That can answer."""
    ongoing: float
    """Calls in its replicas, and before them."""
    told: Mapping[str, Mapping[str, float]]
    """By replica, its counters."""


class Decision(NamedTuple):
    """What is to be."""

    replicas: dict[str, int]
    why: dict[str, str]
    """By pool, in words."""
