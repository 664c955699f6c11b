"""What a plan becomes on Ray: which deployments it needs, and what runs each step of it.

    page ─► clean ─► split ─► answer       gateway ─► runner ─► pool smollm2   bound Serve deployments
                                           clean ─► split                      one Ray Compiled Graph
                                           answer                              a Serve handle

Functions with processes of their own are chains that neither stream nor branch: they become Ray Compiled
Graphs over actors that the runner keeps warm. Whatever streams, branches or meets the calls of other runs in
a batch goes over handles, because a compiled graph holds none of these. What takes microseconds stays where
it is: any hop costs more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from runtime.compiler.draft import inside
from runtime.plan import Backend, ExecutionPlan, ExecutionStep

Lowered = Literal["in the runner", "task of the runner", "Serve handle", "Ray Compiled Graph"]

_BECOMES: Mapping[Backend, Lowered] = {
    "inline": "in the runner",
    "task": "task of the runner",
    "pool": "Serve handle",
    "compiled": "Ray Compiled Graph",
}


class Segment(msgspec.Struct, frozen=True):
    """Nodes that run in one place, one after the other."""

    nodes: tuple[str, ...]
    """Their paths."""
    becomes: Lowered
    on: str
    """The deployment, or the actors."""
    reason: str


def bound(plan: ExecutionPlan) -> list[tuple[str, str]]:
    """Pairs of Serve deployments of which the first holds a handle of the second. A pool of a remote provider
    is none: the runner holds it itself."""
    return [("gateway", "runner"), *(("runner", f"pool {model}") for model in plan.models)]


def segments(plan: ExecutionPlan) -> list[Segment]:
    """Every step of the plan, those inside others behind them."""
    return list(_segments(plan.steps, ""))


def _segments(steps: Sequence[ExecutionStep], path: str) -> Iterator[Segment]:
    for step in steps:
        names = tuple(path + node.name for node in step.nodes)
        yield Segment(names, _BECOMES[step.backend], _place(step), _why(step))
        for node in step.nodes:
            for key, body in node.bodies.items():
                yield from _segments(body.steps, inside(path + node.name, key))


def _place(step: ExecutionStep) -> str:
    match step.backend:
        case "pool":
            return f"pool {step.pool}"
        case "compiled":
            count = len(step.nodes)
            return f"{count} stage actors" if count > 1 else "1 stage actor"
        case _:
            return "runner"


def _why(step: ExecutionStep) -> str:
    bodies = any(node.bodies for node in step.nodes)
    match step.backend:
        case "pool":
            return "batches with the calls of other runs, and streams"
        case "compiled" if len(step.nodes) > 1:
            return "a fixed chain of functions with processes of their own: values pass the runner by"
        case "compiled":
            return "a function with a process of its own"
        case "task" if bodies:
            return "branches: what is inside has places of its own"
        case "task" if any(node.spec.batched for node in step.nodes):
            return "batches with what other runs ask of the same function"
        case "task":
            return "waits for a server, a person, a thread or its policies"
        case _:
            return "microseconds: a hop costs more"
