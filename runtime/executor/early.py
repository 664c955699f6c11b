"""Nodes that run before their conditions are known (`runtime.compiler.savings`).

    judge ──┐ (fine?)          without:  judge ─► answer ─────►
    answer ─┴──────►

A condition that does not hold ends the node in the engines, and what it has cost is lost; its failure is
nobody's then. As with the bodies of a router (`runtime.executor.ahead`), time is bought with tokens, so it is
not done under load. Nor in a run whose nodes are kept: nobody who goes on with it could tell whether a node
that was done had a condition that held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

from runtime.cache.counts import Counts
from runtime.events import NodesDropped
from runtime.executor.call import Call
from runtime.executor.run import Run


class _Begun(NamedTuple):
    call: Call
    task: asyncio.Task[None]


class Early:
    """Those of one execution."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun: dict[str, _Begun] = {}

    def begin(self, name: str, call: Call, work: Coroutine[Any, Any, None]) -> None:
        self._begun[name] = _Begun(call, asyncio.create_task(work))

    def __contains__(self, name: str) -> bool:
        return name in self._begun

    def take(self, name: str) -> asyncio.Task[None] | None:
        """The node's work, where it has begun."""
        begun = self._begun.get(name)
        return None if begun is None else begun.task

    async def drop(self, name: str, kind: str, counts: Counts) -> None:
        """Ends what was done in vain, and tells what it has cost."""
        call, task = self._begun[name]
        await _ended([task])
        self._run.running.pop(call.node, None)
        self._run.forget_inside(call.node)
        self._run.queue.put(NodesDropped(call.node, call.cost))
        counts.add("lost_tokens", kind, call.cost.total_tokens)

    async def end(self) -> None:
        """Returns when none runs any more."""
        if self._begun:
            await _ended([begun.task for begun in self._begun.values()])


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
