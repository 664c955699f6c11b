"""B2, retrieval: a question in other words, a search of a second for each sentence, and an answer.

    modules   one module after the other, as chains of modules run: search after search
    gather    written by hand: the searches at the same time
    ours      rag.yaml

Nothing keeps the engine busy while the searches run, though half of what the answer begins with is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs import plain_tools
from benchmarks.graphs.session import Session, ended, system_of
from graphs.sentences import split

QUESTION = (
    "What does the captain do with a letter that the farmer finds near the station, who may read it then, "
    "and where must the teacher go who wants it back in the evening, when the gate is closed?"
)
"""With the system message 96 tokens."""
EXPAND_TOKENS = 60
ANSWER_TOKENS = 64

Searches = Callable[[list[str], float], Awaitable[list[list[str]]]]


async def _one_by_one(queries: list[str], seconds: float) -> list[list[str]]:
    return [await plain_tools.search(query, seconds) for query in queries]


async def _together(queries: list[str], seconds: float) -> list[list[str]]:
    return list(await asyncio.gather(*(plain_tools.search(query, seconds) for query in queries)))


def case(session: Session) -> Case:
    """Its arms."""
    expander, manual = system_of("rag", "expand"), system_of("rag", "answer")
    runner = session.runner("rag")

    def by_hand(searches: Searches) -> Callable[[str], Awaitable[Measured]]:
        async def run(tenant: str) -> Measured:
            began = perf_counter()
            text = await session.ask(tenant, QUESTION, EXPAND_TOKENS, expander)
            queries = split(text)
            best = plain_tools.rerank(await searches(queries, session.unit_s))
            prompt = "\n".join([*best, QUESTION])
            answer = await session.ask(tenant, prompt, ANSWER_TOKENS, manual, stream=True)
            first_text_at = session.pool.account(tenant).first_token_at
            outputs = {"answer": answer, "queries": queries}
            return session.measured(tenant, began, outputs, first_text_at)

        return run

    async def ours(tenant: str) -> Measured:
        began = perf_counter()
        inputs = {"question": QUESTION, "search_s": session.unit_s}
        end = await ended(runner, "rag", inputs, tenant, stream=True)
        return session.measured(tenant, began, end.outputs, end.first_text_at)

    return Case(
        "B2 RAG",
        "expand 96 → 60, a search of 1 s for each sentence of it, rerank, 512 static + 384 → 64 streamed",
        [
            CaseArm("modules", "one module after the other", by_hand(_one_by_one)),
            CaseArm("gather", "asyncio.gather over the searches", by_hand(_together)),
            CaseArm("ours", "rag.yaml", ours),
        ],
        [
            Target("latency_s", "ours", ">=", 1.3, "modules"),
            Target("latency_s", "ours", ">=", 1.1, "gather"),
            Target("first_text_s", "ours", ">=", 1.3, "modules"),
            Target("first_text_s", "ours", ">=", 1.1, "gather"),
        ],
    )
