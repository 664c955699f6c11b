"""B3, uneven branches: quick tool, then 64 tokens; slow tool, then quick tool; 16 tokens from both.

    langgraph   the same graph on LangGraph, whose supersteps wait for their slowest node
    asyncio     written by hand: a task for each branch
    ours        branches.yaml

All call the same tools, which sleep, and the same engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs import plain_tools
from benchmarks.graphs.peer import Peer
from benchmarks.graphs.session import Session, ended

TOPIC = "lighthouse"


def case(session: Session) -> Case:
    """Its arms; without LangGraph where there is none."""
    runner = session.runner("branches")
    inputs = {"topic": TOPIC, "unit_s": session.unit_s}

    async def first_branch(tenant: str) -> str:
        seen = await plain_tools.look(TOPIC, 0.2 * session.unit_s)
        return await session.ask(tenant, f"Write a short story for children about this: {seen}", 64)

    async def second_branch() -> str:
        asked = await plain_tools.look(TOPIC, 3.0 * session.unit_s)
        return await plain_tools.look(asked, 0.2 * session.unit_s)

    async def by_hand(tenant: str) -> Measured:
        began = perf_counter()
        story, checked = await asyncio.gather(first_branch(tenant), second_branch())
        prompt = f"Write a title for this story, in which there is {checked}: {story}"
        outputs = {"story": story, "title": await session.ask(tenant, prompt, 16)}
        return session.measured(tenant, began, outputs)

    async def ours(tenant: str) -> Measured:
        began = perf_counter()
        end = await ended(runner, "branches", inputs, tenant)
        return session.measured(tenant, began, end.outputs)

    arms = [
        CaseArm("asyncio", "a task for each branch, by hand", by_hand),
        CaseArm("ours", "branches.yaml", ours),
    ]
    if session.peer is not None:
        arms.insert(0, CaseArm("langgraph", "a StateGraph of the same nodes", _peer(session, session.peer)))
    return Case(
        "B3 uneven branches",
        "0.2 s tool → llm 64 ‖ 3 s tool → 0.2 s tool; join llm 16",
        arms,
        [
            Target("latency_s", "ours", ">=", 1.4, "langgraph"),
            Target("latency_s", "ours", ">=", 0.98, "asyncio"),
        ],
    )


def _peer(session: Session, peer: Peer) -> Callable[[str], Awaitable[Measured]]:
    async def run(tenant: str) -> Measured:
        began = perf_counter()
        outputs = await peer.run("branches", tenant, {"topic": TOPIC, "unit_s": session.unit_s})
        return session.measured(tenant, began, outputs)

    return run
