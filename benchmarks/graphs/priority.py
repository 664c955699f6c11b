"""B5, priority: chains of four short calls that somebody waits for, beside long calls that nobody waits for.

    fcfs      every call has the same priority: first come, first served
    static    by hand: the calls of the chains go before the others, in the engine's own queue
    ours      chain.yaml and background.yaml, whose policies say `high` and `low`

The background comes first and all at once; the chains come one after another while it is worked off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.session import Session, ended, nearest_rank
from benchmarks.graphs.texts import text_of

PAGES = 16
PAGE_TOKENS = 384
NOTE_TOKENS = 64
CHAINS = 5
LINKS = 4
QUESTION_TOKENS = 64
ANSWER_TOKENS = 24
PAUSE_S = 2.0
"""Between the arrivals of two chains."""
LATER = 10_000
"""Priority of the background where it has one: lower goes first."""

Note = Callable[[str, int], Awaitable[str]]
"""One page of the background, by its number, under a tenant."""
Chain = Callable[[str, int], Awaitable[list[str]]]


def case(session: Session) -> Case:
    """Its arms."""
    pages = [text_of(session.pool, PAGE_TOKENS, 300 + seed) for seed in range(PAGES)]
    questions = [
        [text_of(session.pool, QUESTION_TOKENS, 400 + LINKS * chain + link) for link in range(LINKS)]
        for chain in range(CHAINS)
    ]
    runner = session.runner("background", "chain")

    def by_hand(later: int) -> tuple[Note, Chain]:
        async def note(tenant: str, page: int) -> str:
            return await session.ask(tenant, pages[page], NOTE_TOKENS, priority=later)

        async def chain(tenant: str, number: int) -> list[str]:
            return [await session.ask(tenant, each, ANSWER_TOKENS) for each in questions[number]]

        return note, chain

    async def our_note(tenant: str, page: int) -> str:
        end = await ended(runner, "background", {"page": pages[page]}, tenant, f"page-{page}")
        return str(end.outputs["note"])

    async def our_chain(tenant: str, number: int) -> list[str]:
        end = await ended(runner, "chain", {"questions": questions[number]}, tenant, f"chain-{number}")
        return list(end.outputs["answers"])

    return Case(
        "B5 priority",
        f"{PAGES} x (384 → 64) in the background; {CHAINS} chains of 4 x (64 → 24)",
        [
            CaseArm("fcfs", "first come, first served", _measured(session, *by_hand(0)), 3),
            CaseArm("static", "two priorities in its queue", _measured(session, *by_hand(LATER)), 3),
            CaseArm(
                "ours", "runs with the policies high and low", _measured(session, our_note, our_chain), 3
            ),
        ],
        [
            Target("foreground_p95_s", "ours", ">=", 2.5, "fcfs"),
            Target("foreground_p95_s", "ours", ">=", 1.1, "static"),
            Target("background_s", "ours", ">=", 0.95, "fcfs"),
        ],
    )


def _measured(session: Session, note: Note, chain: Chain) -> Callable[[str], Awaitable[Measured]]:
    async def timed(work: Awaitable[Any]) -> tuple[Any, float]:
        began = perf_counter()
        return await work, perf_counter() - began

    async def arriving(tenant: str, number: int) -> tuple[list[str], float]:
        await asyncio.sleep(PAUSE_S * session.unit_s * (number + 0.5))
        return await timed(chain(tenant, number))

    async def run(tenant: str) -> Measured:
        began = perf_counter()
        background = asyncio.create_task(
            timed(asyncio.gather(*(note(tenant, page) for page in range(PAGES))))
        )
        chains = await asyncio.gather(*(arriving(tenant, number) for number in range(CHAINS)))
        notes, makespan = await background
        outputs = {"notes": list(notes), "answers": [answers for answers, _ in chains]}
        measured = session.measured(tenant, began, outputs)
        seconds = [each for _, each in chains]
        measured.figures["foreground_p95_s"] = nearest_rank(seconds, 0.95)
        measured.figures["foreground_p50_s"] = nearest_rank(seconds, 0.5)
        measured.figures["background_s"] = makespan
        return measured

    return run
