"""All cases on one engine: starts what they share, measures them, stops it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, CaseSample, measure_cases
from benchmarks.graphs import branches, durable, letters, map_reduce, passes, priority, rag
from benchmarks.graphs.door import open_door
from benchmarks.graphs.engine import fake_engine
from benchmarks.graphs.peer import PEERS, langgraph
from benchmarks.graphs.serving import real_engine
from benchmarks.graphs.session import Session
from cluster.engines.fake import FakeScript
from runtime.store.embedded import EmbeddedValkey

FAKE = FakeScript(first_token_s=0.02, token_s=0.002)
FAKE_UNIT_S = 0.02
WARM_UP = "Say hello."


@asynccontextmanager
async def session(*, fake: bool) -> AsyncIterator[Session]:
    """The engine, the door to it and the peer. The real engine wants Ray to run."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cgb-")))
        pool = await stack.enter_async_context(fake_engine(FAKE) if fake else real_engine())
        store = EmbeddedValkey(folder / "store")
        await asyncio.to_thread(store.start_or_adopt)
        stack.callback(store.stop)
        made = Session(pool, None, folder, store.url, fake, FAKE_UNIT_S if fake else 1.0)
        await stack.enter_async_context(open_door(made.door, _answer(made)))
        if PEERS.exists():
            made = made._replace(peer=await stack.enter_async_context(langgraph(made.door)))
        await made.ask("warm-up", WARM_UP, 2)
        yield made


def cases_of(shared: Session) -> list[Case]:
    """Every case, in the order of the table that they come from."""
    return [
        map_reduce.case(shared),
        rag.case(shared),
        branches.case(shared),
        *letters.cases(shared),
        priority.case(shared),
        *durable.cases(shared),
        passes.case(shared),
    ]


async def measure(
    *, fake: bool, repeats: int, wanted: Sequence[str], progress: Callable[[CaseSample], None]
) -> list[Case]:
    """`wanted` are beginnings of the names of cases; none for all. Gives the cases that were measured.

    Raises `MeasurementFailed`, and what the arms raise.
    """
    async with session(fake=fake) as shared:
        cases = [case for case in cases_of(shared) if not wanted or case.name.startswith(tuple(wanted))]
        await measure_cases(cases, repeats, progress)
    return cases


def _answer(shared: Session) -> Callable[[dict[str, Any]], Any]:
    async def answer(call: dict[str, Any]) -> str:
        return await shared.ask(call["tenant"], call["prompt"], call["max_tokens"])

    return answer
