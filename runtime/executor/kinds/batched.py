"""`function` nodes whose function takes batches: it is called with lists of what several calls give.

run 1: ask ─┐                                       ┌─► 3          one call of the function
run 2: ask ─┼─► [a, b, c] ─► sizes([a, b, c]) ──────┼─► ValueError fails this call alone
run 2: ask ─┘                = [3, ValueError(), 7] └─► 7

One batch of a function is worked at at a time, by all the runs of a runner. When nobody waits for any part of
it any more, an async function is cancelled, and what runs in a thread is left alone with it.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cluster.errors import ClusterError
from cluster.gathering import Place
from graphs.functions import Signature
from graphs.nodes.function import Function
from runtime.errors import NodeError
from runtime.executor.batches import Batches
from runtime.executor.kinds.hinted import Outputs, argument, calling, failed
from runtime.executor.kinds.kind import NodeCall, Perform, Values

Results = list[Values | ClusterError]
"""Of a batch, in its order."""


def in_batches(spec: Function, batches: Batches, target: Callable[..., Any], signature: Signature) -> Perform:
    """How a node of the function runs."""
    batches.meet(spec.call, _Batched(spec, target, signature).work)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        item = {name: argument(name, value, signature) for name, value in inputs.items()}
        return await batches.made(
            spec.call, item, deadline=call.deadline, tenant=call.tenant, priority=call.priority
        )

    return perform


class _Batched:
    """One function."""

    def __init__(self, spec: Function, target: Callable[..., Any], signature: Signature) -> None:
        self._spec = spec
        self._target = target
        self._names = [*signature.inputs, *([] if signature.key is None else [signature.key])]
        self._give = Outputs(spec, in_fields=signature.in_fields)
        self._awaits = inspect.iscoroutinefunction(target)

    async def work(self, batch: Sequence[Place[Values, Values]]) -> int | None:
        """As `cluster.gathering.Work`: its size is the number of calls."""
        lists = {name: [place.item[name] for place in batch] for name in self._names}
        try:
            made = await _while_awaited(self._called(lists, len(batch)), batch)
        except ClusterError as error:
            for place in batch:
                place.end(copy.copy(error))
            return None
        for place, each in zip(batch, made or (), strict=False):
            place.end(each)
        return len(batch) if made else None

    async def _called(self, lists: dict[str, list[Any]], count: int) -> Results:
        if not self._awaits:
            return await asyncio.to_thread(self._compute, lists, count)
        with calling(self._spec):
            results = await self._target(**lists)
        return self._results(results, count)

    def _compute(self, lists: dict[str, list[Any]], count: int) -> Results:
        with calling(self._spec):
            results = self._target(**lists)
        return self._results(results, count)

    def _results(self, results: Any, count: int) -> Results:
        """Raises `NodeError` where there is not one for each call."""
        name = self._spec.call
        if not isinstance(results, list | tuple):
            raise NodeError(f"{name} takes batches and returned a {type(results).__name__}, not a list")
        if len(results) != count:
            raise NodeError(f"{name} returned {len(results)} results for {count} calls, not one for each")
        return [self._result(result) for result in results]

    def _result(self, result: Any) -> Values | ClusterError:
        if isinstance(result, ClusterError):
            return result
        if isinstance(result, Exception):
            return failed(self._spec, result)
        try:
            return self._give(result)
        except NodeError as error:
            return error


async def _while_awaited(
    work: Coroutine[Any, Any, Results], batch: Sequence[Place[Values, Values]]
) -> Results | None:
    """What the work comes to; None where it was given up, as nobody waited for any of it any more."""
    task = asyncio.create_task(work)
    waited_for = len(batch)

    def left(_made: asyncio.Future[Values]) -> None:
        nonlocal waited_for
        waited_for -= 1
        if not waited_for:
            task.cancel()

    for place in batch:
        place.made.add_done_callback(left)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if not task.cancelled():
        return task.result()
    if waited_for:
        raise NodeError("the function was cancelled, by itself or what it called")
    return None
