"""`python -m benchmarks.graphs.runner_peer DOOR STORE`: one of several runner processes over one store.

It calls the engine through the door and keeps what durable runs have done in the store, whose URL it is
given. Like every runner it looks for runs that nobody drives any more. Told to resume, it only waits for the
end of the run, whoever comes to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import structlog

from benchmarks.graphs.door_client import Door
from benchmarks.graphs.engine import MODEL
from benchmarks.graphs.session import PATIENCE_S, ended, pipeline_of
from cluster.errors import InvalidCall
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Embed, Embeddings, Finish, Generate, Usage
from cluster.tokens import counter_for
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.durability.attending import attend
from runtime.durability.journal import Journals
from runtime.durability.model import LEASE_S
from runtime.durability.stored import StoredJournals
from runtime.events import RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from runtime.store.client import Store

STORE_TIMEOUT_S = 5.0


class DoorPool:
    """Implements `cluster.interface.Pool` over the door, as far as the pipelines here need it."""

    def __init__(self, door: Door) -> None:
        self.info = ModelInfo(MODEL, "generate", 2048, 64)
        self.count_tokens = counter_for(None).count
        self._door = door

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        assert call.messages is not None
        text = await self._door.ask(call.tenant, str(call.messages[-1].content), call.max_tokens)
        yield [Delta(text), Finish("length"), Usage(completion_tokens=call.max_tokens)]

    async def embed(self, call: Embed) -> Embeddings:
        raise InvalidCall(f"{call.model} has no embeddings", param="model")

    async def ready(self) -> bool:
        return True


async def serve(runner: Runner, journals: Journals) -> None:
    """Runs what it is told to, line by line."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        told: dict[str, Any] = json.loads(line)
        if told.get("resume"):
            outputs = await _followed(journals, told["tenant"])
        else:
            fields = {"durability": told["durability"]}
            outputs = (await ended(runner, told["graph"], told["inputs"], told["tenant"], **fields)).outputs
        print(json.dumps(outputs), flush=True)


async def _followed(journals: Journals, tenant: str) -> dict[str, Any]:
    """The outputs of the run, when it has them."""
    until = time.time() + PATIENCE_S
    async with aclosing(journals.follow(tenant, f"{tenant}-run")) as pages:
        async for page in pages:
            for each in page:
                if isinstance(each.event, RunFinished):
                    return each.event.outputs
            assert time.time() < until
    raise AssertionError("the run has ended otherwise")


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for what is said
    door = await Door.enter(sys.argv[1])
    pool = DoorPool(door)
    store = Store.connect(sys.argv[2], timeout_s=STORE_TIMEOUT_S)
    journals = StoredJournals(store, f"runner-{os.getpid()}")
    plan = compile_pipeline(pipeline_of("steps"), Catalog({MODEL: pool.info}, {}))
    runner = Runner([plan], Resources({MODEL: pool}), None, journals)
    attending = asyncio.create_task(attend(runner, journals, LEASE_S))
    await serve(runner, journals)
    attending.cancel()
    await asyncio.wait([attending])
    await store.close()
    await door.leave()


if __name__ == "__main__":
    asyncio.run(main())
