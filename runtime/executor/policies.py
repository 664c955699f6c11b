"""What the author of a node asked for in case that it fails: time-outs, retries, fallbacks.

    try ─► pause ─► try ─► pause ─► try ─► fallback ─► fallback ─► NodeFailed

Each try has `timeout_s`. Only listed causes are tried again, each fallback is tried once, and everything ends
with the deadline of the run. Once text of the node has left, or an item of it was read, nothing is tried any
more: it cannot be taken back. A node with nodes inside it starts over as a whole.

The pauses are exponential and jittered (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
2015), and at least as long as an overloaded pool asks for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Container, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from cluster.errors import ClusterError, DeadlineExceeded, ModelUnavailable, Overloaded, ReplicaLost
from graphs.pipeline import Fallback, RetryOn
from runtime.cache.results import Result
from runtime.errors import BudgetExceeded, NodeError
from runtime.executor.kinds.kind import NodeCall, Resources, Values
from runtime.executor.kinds.registry import performer
from runtime.executor.run import NodeBroke
from runtime.executor.saving import Saver, saved
from runtime.executor.tried_call import TriedCall, Try
from runtime.plan import PlannedNode

FIRST_PAUSE_S = 0.2
"""Mean pause after the first try; doubled after each."""
MAX_PAUSE_S = 10.0
CACHED = "cached answer"
"""What the last result is called where it takes the place of a node."""


class _Way(NamedTuple):
    """One thing to try."""

    perform: Try
    to: str | None = None
    """What it is called where it is a fallback."""


def with_policies(node: PlannedNode, resources: Resources, around: Sequence[int] = ()) -> Try:
    """The node as it runs with its policies. Raises `KeyError` naming a model that is not there.

    `around` are the slots of what its bodies take from around it.
    """
    plain = performer(node.spec, resources)
    perform = saved(node, plain, resources, around)
    if node.retry is None and node.timeout_s is None and not node.fallback:
        return perform
    attempts, on = (1, ()) if node.retry is None else (node.retry.attempts, node.retry.on)
    ways: list[_Way | Saver] = [_Way(perform)] * attempts
    for each in node.fallback:
        cached = Saver(node, plain, resources, around) if each.cached else None
        ways.append(cached or _fallback(node, each, resources))
    timeout_s = node.timeout_s

    async def tried(call: TriedCall, inputs: Values) -> Values:
        latest = call.deadline
        failure: ClusterError | NodeBroke | None = None
        for attempt, way in enumerate(ways[call.attempt - 1 :], call.attempt):
            if isinstance(way, Saver):
                kept = await _recalled(way, call, inputs, failure, latest)
                if kept is None:
                    continue
                if failure is not None:
                    call.fell_back(attempt, CACHED, cause_of(failure))
                return await way.give(call, kept)
            if failure is not None and not await _begins(way, attempt, call, failure, latest, on):
                continue
            try:
                return await _once(way.perform, call, inputs, latest, timeout_s)
            except (ClusterError, NodeBroke) as broke:
                failure = broke
        raise failure or NodeError("what it gave before is not kept any more")

    return tried


async def _recalled(
    saver: Saver, call: TriedCall, inputs: Values, failure: ClusterError | NodeBroke | None, latest: float
) -> Result | None:
    """What the node gave before, where that may take its place."""
    if failure is not None and _is_final(call, failure, latest):
        return None
    return await saver.recall(call, inputs)


def _is_final(call: TriedCall, failure: ClusterError | NodeBroke, latest: float) -> bool:
    """Whether nothing may be tried after a failure."""
    return call.spoken or time.time() >= latest or isinstance(error_of(failure), BudgetExceeded)


async def _begins(
    way: _Way,
    attempt: int,
    call: TriedCall,
    failure: ClusterError | NodeBroke,
    latest: float,
    on: Container[RetryOn],
) -> bool:
    """Whether the next way is tried after a failure. Waits where it must."""
    if _is_final(call, failure, latest):
        return False
    reason, error = cause_of(failure), error_of(failure)
    if way.to is not None:
        call.fell_back(attempt, way.to, reason)
        return True
    jitter = random.random()  # noqa: S311 - it spreads load and guards nothing
    pause = max(pause_s(attempt - 1, jitter), error.retry_after_s or 0.0)
    if reason not in on or time.time() + pause >= latest:
        return False
    await asyncio.sleep(pause)
    call.retried(attempt, reason)
    return True


async def _once(
    perform: Try, call: TriedCall, inputs: Values, latest: float, timeout_s: float | None
) -> Values:
    if timeout_s is None:
        return await perform(call, inputs)
    call.deadline = min(latest, time.time() + timeout_s)
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await perform(call, inputs)
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"it took longer than {timeout_s:g} s") from None


def pause_s(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures; `jitter` is from 0 to 1."""
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1)) * (0.5 + jitter)


def cause_of(failure: ClusterError | NodeBroke) -> RetryOn:
    """What authors call it."""
    match error_of(failure):
        case ModelUnavailable() | ReplicaLost():
            return "unavailable"
        case Overloaded():
            return "overloaded"
        case DeadlineExceeded():
            return "timeout"
        case _:
            return "error"


def error_of(failure: ClusterError | NodeBroke) -> ClusterError:
    return failure.error if isinstance(failure, NodeBroke) else failure


def _fallback(node: PlannedNode, fallback: Fallback, resources: Resources) -> _Way:
    spec = node.spec
    if fallback.model is not None:
        other = replace(node, spec=replace(spec, model=fallback.model), cache=None, fallback=())
        perform = saved(other, performer(other.spec, resources), resources, ())
        return _Way(perform, f"model {fallback.model}")
    outputs = spec.stand_in(fallback.value)
    assert outputs is not None, "validation refuses a value for a kind that has none"
    values = dict(outputs)

    async def give(_call: NodeCall, _inputs: Values) -> Values:
        return values

    return _Way(give, "value")
