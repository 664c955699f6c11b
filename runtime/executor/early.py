"""Nodes that run before their conditions are known, and cases of a branch (`runtime.compiler.savings`).

    judge ──┐ (fine?)          without:  judge ─► answer ─────►
    answer ─┴──────►

A condition that does not hold ends the node in the engines, and what it has cost is lost; its failure is
nobody's then. As with the bodies of a router (`runtime.executor.ahead`), time is bought with tokens, so it is
not done under load. Nor in a run whose nodes are kept: nobody who goes on with it could tell whether a node
that was done had a condition that held.

    judge ──┐ (hard?)
    case 0 ─┼ branch ─►        each case begins when what it takes is there, and not where a condition that
    case 1 ─┘                  is known already speaks against it

A branch starts when its conditions are known, and takes its cases over from here. So cases may begin in a run
that is kept, too: what was done in one says nothing of the branch, which chooses again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.messages import Usage
from runtime.cache.counts import Counts
from runtime.events import NodesDropped
from runtime.executor.ahead import Candidate, may_begin
from runtime.executor.call import Call
from runtime.executor.premises import may_come
from runtime.executor.prepare import EarlyStart, PreparedNode
from runtime.executor.run import Run
from runtime.executor.slots import Values


@dataclass(slots=True)
class _Begun:
    call: Call
    work: asyncio.Task[None] | None = None
    """Of the node as a whole; absent where only cases have begun."""
    taken: bool = False
    """Whether the node is run by whoever else."""
    cases_tokens: int = 0
    """Most that the cases use which have begun."""

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What runs and nobody else sees to."""
        return [*self.call.take_begun().values(), *([] if self.work is None else [self.work])]


class Early:
    """Those of one execution."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun: dict[str, _Begun] = {}

    def may_begin(self, node: PreparedNode, early: EarlyStart, values: Values) -> bool:
        run, begun = self._run, self._begun.get(node.name)
        left = run.tokens_left
        if early.premises is None:
            fits = not run.progress.keeps
        else:
            fits = (begun is None or begun.work is None) and may_come(early.premises, values)
            left = left if left is None or begun is None else left - begun.cases_tokens
        load, stream = node.savings.load.of, run.scope.stream
        return fits and bool(may_begin([early.candidate], load, left, stream=stream))

    def call_of(self, name: str) -> Call | None:
        """The node's call, where anything of it has begun."""
        return self._begun[name].call if name in self._begun else None

    def begin(self, name: str, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Begins a node."""
        self._begun.setdefault(name, _Begun(call)).work = asyncio.create_task(work)

    def begin_case(self, name: str, call: Call, case: Candidate) -> None:
        """Begins a case of a branch."""
        self._begun.setdefault(name, _Begun(call)).cases_tokens += case.tokens
        call.begin(case.key)

    def __contains__(self, name: str) -> bool:
        return name in self._begun

    def take(self, name: str) -> tuple[Call | None, asyncio.Task[None] | None]:
        """The call of a node of which anything has begun, and its work where it has itself."""
        begun = self._begun.get(name)
        if begun is None:
            return None, None
        begun.taken = True
        return begun.call, begun.work

    async def drop(self, name: str, kind: str, counts: Counts) -> None:
        """Ends what was done in vain, and tells what it has cost."""
        begun = self._begun[name]
        call = begun.call
        await _ended(begun.tasks())
        self._run.running.pop(call.node, None)
        self._run.forget_inside(call.node)
        self._run.queue.put(NodesDropped(call.node, call.cost))
        counts.add("lost_tokens", kind, call.cost.total_tokens)

    async def end(self) -> Usage:
        """Returns when none runs any more: what the cases have cost that no branch has taken."""
        if not self._begun:
            return Usage()
        await _ended([task for begun in self._begun.values() for task in begun.tasks()])
        left = (each.call for each in self._begun.values() if each.work is None and not each.taken)
        return sum((call.cost for call in left), Usage())


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
