"""Nodes that call a model over a Serve handle, whose replica answers at once.

raw    the handle itself, with bytes that are made beforehand
pool   `cluster.pools.handle.HandlePool`: what a node calls
ours   a pipeline of model calls, the whole run divided by their number
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

from ray import serve

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.nodes.local import outputs_of
from benchmarks.nodes.timing import measured, timed
from cluster.config import FakeSpec
from cluster.engines.fake import FakeTokenCounter
from cluster.interface import Pool
from cluster.messages import Delta, Generate, Message, decode_events, encode
from cluster.pools.deploy import bind, model_info
from cluster.pools.handle import HandlePool
from graphs.builder import Builder
from graphs.nodes.llm import Llm
from graphs.pipeline import Pipeline
from graphs.ports import STRING
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner

NODES = 20
TIMES = 15
MODEL = "fake"
TOKENS = 8
MUCH = 1.1
"""How many times the raw handle a hop may take."""


async def case() -> Case:
    """Deploys the replica that all arms call."""
    spec = FakeSpec(name=MODEL, engine="fake", script={"output_tokens": TOKENS})
    handle = await asyncio.to_thread(serve.run, bind(spec, None), name="hops", route_prefix=None)  # type: ignore[arg-type]
    pool = HandlePool(model_info(spec), handle, FakeTokenCounter())
    runner = Runner(
        [compile_pipeline(chain(NODES), Catalog({MODEL: pool.info}, {}))], Resources({MODEL: pool})
    )
    once = handle.options(method_name="call", request_serialization="pickle", response_serialization="pickle")

    async def by_handle(_: int) -> object:
        text = "begin"
        for _ in range(NODES):
            events = decode_events(await once.remote(encode(_call(text))))
            text = "".join(event.text for event in events if isinstance(event, Delta))
        return text

    async def by_pool(_: int) -> object:
        text = "begin"
        for _ in range(NODES):
            text = await _asked(pool, text)
        return text

    async def run(_: int) -> object:
        return (await outputs_of(runner, "hops", {"text": "begin"}))["text"]

    async def raw(_: str) -> Measured:
        return measured(await timed(by_handle, nodes=NODES, times=TIMES))

    async def pooled(_: str) -> Measured:
        return measured(await timed(by_pool, nodes=NODES, times=TIMES))

    async def ours(_: str) -> Measured:
        floor = await timed(by_handle, nodes=NODES, times=TIMES)
        return measured(await timed(run, nodes=NODES, times=TIMES), floor)

    return Case(
        "N3 handle",
        f"a chain of {NODES} calls to a replica that answers at once",
        [
            CaseArm("raw", "the Serve handle", raw),
            CaseArm("pool", "the pool over it", pooled),
            CaseArm("ours", "a pipeline of model calls", ours),
        ],
        [Target("node_us", "ours", ">=", 1 / MUCH, "raw")],
        shown=("node_us",),
    )


def chain(nodes: int) -> Pipeline:
    """So many model calls, each asked what the one before has answered."""
    builder = Builder("hops")
    text: Any = builder.input("text", STRING)
    for place in range(nodes):
        text = builder.add(f"m{place}", Llm(MODEL, max_tokens=TOKENS, temperature=0), prompt=text).text
    builder.output("text", text)
    return builder.build()


def _call(text: str) -> Generate:
    deadline = time.time() + 60
    return Generate(f"raw-{time.time_ns()}", MODEL, TOKENS, deadline, [Message("user", text)])


async def _asked(pool: Pool, text: str) -> str:
    async with aclosing(pool.generate(_call(text))) as batches:
        events = [event async for batch in batches for event in batch]
    return "".join(event.text for event in events if isinstance(event, Delta))
