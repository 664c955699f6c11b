"""What prompts begin with, read by the engines before the calls are made (`runtime.compiler.warming`).

    ask ─► search ────► answer          without:  ask ─► search ────► answer (reads 512 + 384 tokens first)
           └ 512 tokens ─┘

A call for one token with exactly that beginning, behind all others in the queue of the engine, which keeps
what it has read for whatever begins so. Only where the runner has not seen such a call lately, not under
load, and not where the budget of the run is below what its plan may use: the tokens are owed by the run. It
ends when the call that it is for is made, or the run ends; its failure is nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from cluster.errors import ClusterError, InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Pool
from cluster.messages import Generate, Message, Sampling, Usage
from runtime.cache.savings import Savings
from runtime.cache.warmth import Prefix, Warmth
from runtime.events import PrefixRead
from runtime.executor.ahead import BUSY_CALLS
from runtime.executor.run import Ledger, Run

BEHIND_ALL = 100_000
"""Added to the priority of a run: after the calls of every other."""
_ONE_TOKEN = Sampling(temperature=0.0)


class Beginning(NamedTuple):
    """Of the prompt of a node, to be read ahead."""

    node: str
    kind: str
    digest: str
    messages: list[Message]
    most_tokens: int
    """That the run has reserved for it."""
    pool: Pool
    savings: Savings


def begin(run: Run, beginnings: Sequence[Beginning], path: str) -> None:
    """Has them read, as far as that pays. `path` is what those of the nodes begin with."""
    for each in beginnings:
        prefix = Prefix(each.pool.info.name, run.scope.tenant, each.digest)
        warmth, load = each.savings.warmth, each.savings.load
        if run.scope.warms and load.of(prefix.model) < BUSY_CALLS and not warmth.has(prefix):
            warmth.note(prefix)
            run.reading[prefix] = asyncio.create_task(_read(run, each, path + each.node))


def met(run: Run, warmth: Warmth, model: str, digest: str) -> None:
    """A call that begins so is made now: there is nothing left to gain."""
    prefix = Prefix(model, run.scope.tenant, digest)
    warmth.note(prefix)
    task = run.reading.get(prefix)
    if task is not None:
        task.cancel()


async def end_reading(run: Run) -> None:
    """Returns when nothing is read ahead for the run any more."""
    for task in run.reading.values():
        task.cancel()
    await asyncio.gather(*run.reading.values(), return_exceptions=True)


async def _read(run: Run, beginning: Beginning, path: str) -> None:
    pool, savings, ledger = beginning.pool, beginning.savings, Ledger()
    request = Generate(
        request_id=f"{run.request_prefix}.{path}+0",
        model=pool.info.name,
        max_tokens=1,
        deadline=run.scope.deadline,
        messages=beginning.messages,
        sampling=_ONE_TOKEN,
        tenant=run.scope.tenant,
        priority=run.scope.priority + BEHIND_ALL,
    )
    tokens = pool.count_tokens(request)
    if tokens >= beginning.most_tokens:
        return
    request = msgspec.structs.replace(
        request, prompt_tokens=tokens, expected_tokens=1, session=run.scope.run_id
    )
    run.opened(ledger)
    ledger.called(request.model, tokens)
    savings.load.begun(request.model)
    try:
        ledger.owe(await _usage(pool, request, tokens))
    except (Overloaded, ModelUnavailable, InvalidCall):
        ledger.owe(Usage())
    except ClusterError:
        return
    finally:
        savings.load.ended(request.model)
        run.settled(ledger)
        savings.counts.add("warmed_tokens", beginning.kind, ledger.usage.total_tokens)
        run.queue.put(PrefixRead(path, request.model, ledger.usage))


async def _usage(pool: Pool, request: Generate, tokens: int) -> Usage:
    """What the call came to; its prompt, where the engine does not say."""
    used = Usage(tokens)
    async with aclosing(pool.generate(request)) as batches:
        async for batch in batches:
            used = next((event for event in batch if isinstance(event, Usage)), used)
    return used
