"""What a runner needs of whatever keeps its runs: the store, or one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from runtime.durability.model import Checkpoint, Lease, Numbered
from runtime.events import RunEvent
from runtime.plan import ExecutionPlan
from runtime.runner import RunRequest


class Journal(Protocol):
    """Of one run, written by the one runner that holds its lease."""

    @property
    def lease(self) -> Lease: ...

    @property
    def attempt(self) -> int:
        """1 for the runner that began the run."""
        ...

    @property
    def done(self) -> Mapping[str, Checkpoint]:
        """What was done before this attempt, by path."""
        ...

    async def append(self, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]) -> None:
        """Writes both at once, or neither; returns when they are kept.

        While the store is out it tries again, until the run's deadline. Raises `LeaseLost` when another
        runner has taken over, and `StoreError`.
        """
        ...

    async def close(self) -> None:
        """Gives the lease back. After the last event nobody takes the run over any more."""
        ...


class Taken(NamedTuple):
    """A run to go on with."""

    journal: Journal
    request: RunRequest
    plan: ExecutionPlan
    """The one it began with, whatever is deployed now."""


class Journals(Protocol):
    """The journals of all runs, as one runner sees them."""

    async def begin(self, request: RunRequest, plan: ExecutionPlan) -> Journal:
        """Takes the lease of a new run. Raises `RunExists`, `StoreError`."""
        ...

    async def take(self, tenant: str, run_id: str) -> Taken:
        """Takes the lease of a run that nobody holds, and has not ended or is to go on after a failure.

        Raises `RunHeld`, `UnknownRun`, `StoreError`.
        """
        ...

    async def abandoned(self) -> Sequence[tuple[str, str]]:
        """Tenant and id of runs that go on and whose lease nobody holds. Raises `StoreError`."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Holds on to the leases; those that are lost. Raises `StoreError`."""
        ...

    def follow(self, tenant: str, run_id: str, after: int = 0) -> AsyncIterator[list[Numbered]]:
        """The events behind number `after` as they are kept, until the run has ended or is suspended.

        Raises `UnknownRun`, `StoreError`.
        """
        ...
