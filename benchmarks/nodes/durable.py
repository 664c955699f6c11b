"""Nodes of durable runs: what keeping each step costs, over a Valkey of this machine.

none   nothing is kept
ours   durability `step`: every node's outputs are in the store before the run goes on
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.nodes.local import calls, outputs_of
from benchmarks.nodes.timing import measured, timed
from runtime.compiler.compile import compile_pipeline
from runtime.durability.stored import StoredJournals
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey

NODES = 50
TIMES = 15
STORE_TIMEOUT_S = 5.0
STEP_US = 1000.0
"""What keeping a node may take, at most: a thousandth of what a short model call does."""


@asynccontextmanager
async def case() -> AsyncIterator[Case]:
    """Over a store that is gone afterwards."""
    with TemporaryDirectory(prefix="cgb-") as folder:
        valkey = EmbeddedValkey(Path(folder) / "store")
        await asyncio.to_thread(valkey.start_or_adopt)
        store = Store.connect(valkey.url, timeout_s=STORE_TIMEOUT_S)
        try:
            yield _case(Runner([compile_pipeline(calls(NODES))], Resources({}), None, _journals(store)))
        finally:
            await store.close()
            valkey.stop()


def _journals(store: Store) -> StoredJournals:
    return StoredJournals(store, f"benchmark-{time.time_ns()}")


def _case(runner: Runner) -> Case:
    async def run(number: int, durability: str) -> object:
        return (await outputs_of(runner, "calls", {"number": number}, durability=durability))["number"] > 0

    async def none(_: str) -> Measured:
        return measured(await timed(lambda number: run(number, "none"), nodes=NODES, times=TIMES))

    async def ours(_: str) -> Measured:
        floor = await timed(lambda number: run(number, "none"), nodes=NODES, times=TIMES)
        kept = await timed(lambda number: run(number, "step"), nodes=NODES, times=TIMES)
        return measured(kept, floor)

    return Case(
        "N7 step",
        f"a chain of {NODES} functions that are awaited, each kept in the store as it ends",
        [CaseArm("none", "nothing is kept", none), CaseArm("ours", "durability step", ours)],
        [Target("overhead_us", "ours", "<=", STEP_US)],
        shown=("node_us",),
    )
