"""Stages of a chain: functions in processes of their own, one handing its values to the next.

What a chain is made of and what it looks like to its user; `compiled_graph` makes one of Ray's actors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cluster.errors import ClusterError

Values = dict[str, Any]
Compute = Callable[[Values], Values]


class Source(NamedTuple):
    """Where a stage takes a value from."""

    stage: int | None
    """Index of an earlier stage; None for what the chain was given."""
    key: str


class Stage(NamedTuple):
    """One process of a chain."""

    make: Callable[[], Compute]
    """Called once, in that process. Pickled."""
    takes: Mapping[str, Source]
    """By name of an input."""
    num_cpus: float = 1.0


class Made(NamedTuple):
    """What a stage gave."""

    outputs: Values
    seconds: float


class StageFailed(Exception):
    """A stage raised a `ClusterError`."""

    def __init__(self, stage: int, error: ClusterError) -> None:
        super().__init__(stage, error)
        self.stage = stage
        self.error = error


class StageChain(Protocol):
    """Stages that are there to be used."""

    @property
    def ready(self) -> bool:
        """Whether `run` can be called now."""
        ...

    async def run(self, given: Values) -> Sequence[Made]:
        """What each stage made, in their order.

        Raises `StageFailed` for a stage that raised a `ClusterError`, `ReplicaLost` when a process died or
        the chain is being started, and `Overloaded` when too many calls wait.
        """
        ...


OpenChain = Callable[[str, Sequence[Stage]], StageChain]
"""A chain by a name for people, which starts by itself and is ready some time later."""
