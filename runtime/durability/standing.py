"""What a run is after an event, who may take it, and what those are told who may not."""

from __future__ import annotations

from typing import Literal

from cluster.errors import Overloaded
from runtime.durability.model import RunState
from runtime.errors import LeaseLost, RunEnded, RunError, RunExists, RunHeld, UnknownRun
from runtime.events import RunEvent, RunFailed, RunFinished, RunSuspended

Refusal = Literal["unknown", "held", "succeeded", "failed", "suspended", "lost", "exists"]
"""Why a run is not to be had."""

FULL_RETRY_S = 10.0


def state_after(event: RunEvent) -> RunState:
    match event:
        case RunFinished():
            return "succeeded"
        case RunFailed():
            return "failed"
        case RunSuspended():
            return "suspended"
        case _:
            return "running"


def refusal(state: RunState, *, held: bool, resumed: bool) -> Refusal | None:
    """Why nobody may take the run; None where one may. `resumed`: somebody wants it to go on all the same."""
    if state == "running":
        return "held" if held else None
    return None if resumed and state != "succeeded" else state


def refused(run_id: str, why: Refusal) -> RunError:
    """The error that says so."""
    match why:
        case "unknown":
            return UnknownRun(
                f"nothing is kept of a run {run_id}: there was none, it was not durable, or it was long ago"
            )
        case "held":
            return RunHeld(f"another runner goes on with the run {run_id}")
        case "succeeded":
            return RunEnded(f"the run {run_id} has succeeded: fork it to run a part of it again")
        case "failed":
            return RunEnded(f"the run {run_id} has failed: it goes on when somebody resumes it")
        case "suspended":
            return RunEnded(f"the run {run_id} waits for people: it goes on when they have decided")
        case "lost":
            return LeaseLost(f"another runner has taken over the run {run_id}")
        case "exists":
            return RunExists(f"a run {run_id} has begun already")


def too_many(most: int) -> Overloaded:
    return Overloaded(
        f"{most} durable runs of the tenant go on or wait, the most that are kept", retry_after_s=FULL_RETRY_S
    )
