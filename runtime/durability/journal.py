"""What a runner needs of whatever keeps its runs: the store, or one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple, Protocol

from runtime.durability.model import Checkpoint, Lease, Numbered, RunState
from runtime.events import RunEvent
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest


class Journal(Protocol):
    """Of one run, written by the one runner that holds its lease."""

    @property
    def lease(self) -> Lease: ...

    @property
    def attempt(self) -> int:
        """1 for the runner that began the run."""
        ...

    @property
    def number(self) -> int:
        """Of the last event that is kept, 0 before the first. What `follow` goes on after."""
        ...

    @property
    def done(self) -> Mapping[str, Checkpoint]:
        """What was done before this attempt, by path."""
        ...

    async def append(self, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]) -> None:
        """Writes both at once, or neither; returns when they are kept.

        The events are numbered in the order in which they come. One that ends or suspends the run is the
        last, and gives the lease back. While the store is out it tries again, until the run's deadline.
        Raises `LeaseLost` when another runner has taken over, `TooMuchToKeep`, `UnknownRun` when the store
        has lost the run, and `StoreError`.
        """
        ...

    async def close(self) -> None:
        """Gives the lease back, where it still is ours: another runner may go on at once. Never raises."""
        ...


class Taken(NamedTuple):
    """A run to go on with."""

    journal: Journal
    request: RunRequest
    plan: ExecutionPlan
    """The one it began with, whatever is deployed now."""


class Head(NamedTuple):
    """What a run is, without its plan and what its nodes gave: as long as its inputs, however long it ran."""

    request: RunRequest
    state: RunState
    attempt: int


class Kept(NamedTuple):
    """All that is kept of a run, its events excepted."""

    request: RunRequest
    plan: ExecutionPlan
    state: RunState
    attempt: int
    done: Mapping[str, Checkpoint]
    """By path; also what a resume needs no more, as far as there was room for it: forks begin there too."""


class Journals(Protocol):
    """The journals of all runs, as one runner sees them."""

    async def begin(
        self, request: RunRequest, plan: ExecutionPlan, done: Sequence[Checkpoint] = ()
    ) -> Journal:
        """Takes the lease of a new run. `done` is what it need not do itself: a fork has it from another run.

        Until its first `append` nobody else can see the run, and it is forgotten if its runner dies.
        Raises `RunExists`, `TooMuchToKeep`, `Overloaded` where too many runs of the tenant go on, and
        `StoreError`.
        """
        ...

    async def take(self, tenant: str, run_id: str, *, deadline: float | None = None) -> Taken:
        """Takes the lease of a run that goes on and that nobody holds.

        With a new `deadline` (Unix seconds) also that of one that has failed or is suspended: `request` has
        it then. Raises `RunHeld`, `UnknownRun`, `RunEnded`, `StoreError`.
        """
        ...

    async def head(self, tenant: str, run_id: str) -> Head:
        """What a run is, whoever holds it. Raises `UnknownRun`, `StoreError`."""
        ...

    async def read(self, tenant: str, run_id: str) -> Kept:
        """What is kept of a run, whoever holds it. Raises `UnknownRun`, `StoreError`."""
        ...

    async def abandoned(self) -> Sequence[tuple[str, str]]:
        """Tenant and id of runs that go on and whose lease nobody holds. Raises `StoreError`."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Holds on to the leases; those that are lost. Raises `StoreError`."""
        ...

    def follow(
        self, tenant: str, run_id: str, after: int = 0, *, wait: bool = True
    ) -> AsyncGenerator[list[Numbered], None]:
        """The events behind number `after` as they are kept, until the run has ended or is suspended; those
        that are kept by now where nobody is to `wait` for more.

        A `RunFailed` or `RunSuspended` is not the last where the run was resumed since.
        Whoever stops early closes it. Raises `UnknownRun`, `StoreError`.
        """
        ...
