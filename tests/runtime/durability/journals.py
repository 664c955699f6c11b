"""Requests, plans and events of runs that are journaled, for the tests beside this file."""

from __future__ import annotations

from typing import Any

from cluster.messages import Failure, Usage
from graphs.nodes.prompt import Prompt
from runtime.durability.journal import Journal, Journals
from runtime.durability.model import Checkpoint, Numbered
from runtime.events import RunFailed, RunFinished, RunStarted, RunSuspended
from runtime.request import RunRequest
from tests.runtime.executor.plans import node, plan

PLAN = plan(
    node("ask", Prompt("{{ question }}?"), question="$inputs.question"),
    answer="$ask.text",
)
LEASE_S = 5.0

STARTED = RunStarted("run-1", "g", "1", "h")
FINISHED = RunFinished({"answer": "yes"}, Usage(3, 4), 0.5)
FAILED = RunFailed(Failure("NodeError", "it broke"), Usage(3, 4), 0.5, "ask")
SUSPENDED = RunSuspended(["review"], Usage(), 0.5)


class Clock:
    """Unix seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def request(run_id: str = "run-1", tenant: str = "acme", **fields: Any) -> RunRequest:
    return RunRequest(run_id, "g", {"question": "ü?"}, 1_900_000_000.0, tenant, durability="step", **fields)


def checkpoint(path: str, text: str = "yes", **fields: Any) -> Checkpoint:
    return Checkpoint(path, {"text": text}, **fields)


async def begun(journals: Journals, run_id: str = "run-1", tenant: str = "acme") -> Journal:
    """A run that others can see."""
    journal = await journals.begin(request(run_id, tenant), PLAN)
    await journal.append([STARTED], [])
    return journal


async def followed(
    journals: Journals, run_id: str = "run-1", tenant: str = "acme", after: int = 0
) -> list[Numbered]:
    """All that a follower hears until the end."""
    return [each async for batch in journals.follow(tenant, run_id, after) for each in batch]
