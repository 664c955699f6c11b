"""B1, map-reduce: eight notes of 640 tokens' prompt each, 256 of them shared, and one report of the notes.

    sequential   one call after the other
    gather       `asyncio.gather` over the eight, then the report
    ours         map-reduce.yaml

The rules that all notes are written by are the system message of their calls.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.session import Session, ended, system_of
from benchmarks.graphs.texts import text_of

PARTS = 8
PROMPT_TOKENS = 640
NOTE_TOKENS = 48
REPORT_TOKENS = 64


def case(session: Session) -> Case:
    """Its arms."""
    rules, editor = system_of("map-reduce", "notes", "each"), system_of("map-reduce", "report")
    parts = [text_of(session.pool, PROMPT_TOKENS, seed, rules) for seed in range(PARTS)]
    runner = session.runner("map-reduce")

    async def note(tenant: str, part: str) -> str:
        return await session.ask(tenant, part, NOTE_TOKENS, rules)

    async def report(tenant: str, notes: list[str]) -> dict[str, object]:
        text = await session.ask(tenant, "\n".join(notes), REPORT_TOKENS, editor)
        return {"report": text, "notes": notes}

    async def sequential(tenant: str) -> Measured:
        began = perf_counter()
        notes = [await note(tenant, part) for part in parts]
        return session.measured(tenant, began, await report(tenant, notes))

    async def gather(tenant: str) -> Measured:
        began = perf_counter()
        notes = await asyncio.gather(*(note(tenant, part) for part in parts))
        return session.measured(tenant, began, await report(tenant, list(notes)))

    async def ours(tenant: str) -> Measured:
        began = perf_counter()
        end = await ended(runner, "map-reduce", {"parts": parts}, tenant)
        return session.measured(tenant, began, end.outputs)

    return Case(
        "B1 map-reduce",
        "8 x (256 shared + 384 → 48), then 512 → 64",
        [
            CaseArm("sequential", "one call after the other", sequential),
            CaseArm("gather", "asyncio.gather over the eight, then the report", gather),
            CaseArm("ours", "map-reduce.yaml", ours),
        ],
        [
            Target("latency_s", "ours", ">=", 2.0, "sequential"),
            Target("latency_s", "ours", ">=", 1.1, "gather"),
            Target("prefilled_tokens", "ours", ">=", 1.0, "gather"),
        ],
    )
