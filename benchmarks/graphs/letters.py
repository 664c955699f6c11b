"""B4, dedupe: twelve runs, each of which sums up a letter and asks the summary something.

    gather   twelve coroutines at the same time
    ours     letters.yaml, twelve runs at the same time

First over four letters, then over the same four with new questions (`again`), and in a case of its own over
twelve letters, where nothing can be saved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.session import Session, ended
from benchmarks.graphs.texts import text_of

RUNS = 12
LETTERS = 4
LETTER_TOKENS = 512
SUMMARY_TOKENS = 64
QUESTION_TOKENS = 96
"""Of the prompt of a question, before the summary of 64 comes in: 160 together."""
ANSWER_TOKENS = 48

Asked = list[tuple[str, str]]
"""Letter and question of each run."""
Work = Callable[[str, Asked], Awaitable[list[dict[str, object]]]]
"""Given a tenant."""
Arm = Callable[[str], Awaitable[Measured]]


def cases(session: Session) -> list[Case]:
    """Two, with the same arms."""
    letters = [text_of(session.pool, LETTER_TOKENS, 100 + seed) for seed in range(RUNS)]
    questions = [text_of(session.pool, QUESTION_TOKENS, 200 + seed) for seed in range(2 * RUNS)]
    shared = [letters[run % LETTERS] for run in range(RUNS)]
    first = list(zip(shared, questions[:RUNS], strict=True))
    again = list(zip(shared, questions[RUNS:], strict=True))
    distinct = list(zip(letters, questions[:RUNS], strict=True))
    works = {"gather": _by_hand(session), "ours": _ours(session)}
    what = "12 x (512 → 64, then 160 → 48)"

    def arm(name: str, run: Arm, repeats: int | None = None) -> CaseArm:
        describe = "twelve coroutines" if name == "gather" else "twelve runs of letters.yaml"
        return CaseArm(name, describe, run, repeats)

    return [
        Case(
            "B4 dedupe",
            f"{what} over 4 letters; then the same letters again with other questions",
            [arm(name, _twice(session, work, first, again)) for name, work in works.items()],
            [
                Target("again_s", "ours", ">=", 1.6, "gather"),
                Target("calls", "ours", ">=", 1.4, "gather"),
                Target("again_calls", "ours", ">=", 1.9, "gather"),
            ],
        ),
        Case(
            "B4 distinct",
            f"{what} over 12 letters",
            [arm(name, _once(session, work, distinct)) for name, work in works.items()],
            [Target("latency_s", "ours", ">=", 0.97, "gather")],
        ),
    ]


def _by_hand(session: Session) -> Work:
    async def one(tenant: str, letter: str, question: str) -> dict[str, object]:
        summary = await session.ask(tenant, letter, SUMMARY_TOKENS)
        answer = await session.ask(tenant, f"{question}\n{summary}", ANSWER_TOKENS)
        return {"summary": summary, "answer": answer}

    async def work(tenant: str, asked: Asked) -> list[dict[str, object]]:
        return list(await asyncio.gather(*(one(tenant, *pair) for pair in asked)))

    return work


def _ours(session: Session) -> Work:
    runner = session.runner("letters")

    async def work(tenant: str, asked: Asked) -> list[dict[str, object]]:
        ends = await asyncio.gather(
            *(
                ended(runner, "letters", {"letter": letter, "question": question}, tenant, question[:60])
                for letter, question in asked
            )
        )
        return [end.outputs for end in ends]

    return work


def _once(session: Session, work: Work, asked: Asked) -> Arm:
    async def run(tenant: str) -> Measured:
        began = perf_counter()
        return session.measured(tenant, began, await work(tenant, asked))

    return run


def _twice(session: Session, work: Work, first: Asked, again: Asked) -> Arm:
    async def run(tenant: str) -> Measured:
        began = perf_counter()
        outputs = await work(tenant, first)
        measured = session.measured(tenant, began, outputs)
        began = perf_counter()
        outputs += await work(tenant, again)
        measured.figures["again_s"] = perf_counter() - began
        measured.figures["again_calls"] = session.pool.account(tenant).calls - measured.figures["calls"]
        return measured

    return run
