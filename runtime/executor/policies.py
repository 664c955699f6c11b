"""What the author of a node asked for in case that it fails: time-outs, retries, fallbacks.

    try ─► pause ─► try ─► pause ─► try ─► fallback ─► fallback ─► NodeFailed

Each try has `timeout_s`. Only listed causes are tried again, each fallback is tried once, and everything ends
with the deadline of the run. Once text of the node has left, nothing is tried any more: it cannot be taken
back. A node with nodes inside it starts over as a whole.

The pauses are exponential and jittered (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
2015), and at least as long as an overloaded pool asks for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Container
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from cluster.errors import ClusterError, DeadlineExceeded, ModelUnavailable, Overloaded, ReplicaLost
from graphs.nodes.registry import AnySpec
from graphs.pipeline import Fallback, RetryOn
from runtime.errors import BudgetExceeded
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.executor.kinds.registry import performer
from runtime.executor.run import NodeBroke
from runtime.plan import PlannedNode

FIRST_PAUSE_S = 0.2
"""Mean pause after the first try; doubled after each."""
MAX_PAUSE_S = 10.0


class TriedCall(NodeCall, Protocol):
    """A call that can be tried more than once."""

    deadline: float
    """Unix seconds. Set for each try."""
    attempt: int
    """Of the try that it is at: 1, or that at which an earlier attempt at the run had arrived."""
    spoken: bool
    """Whether text of it, or of a node inside it, has left."""

    def retried(self, attempt: int, reason: RetryOn) -> None:
        """Reports that try number `attempt` begins, and why the one before failed."""

    def fell_back(self, attempt: int, to: str, reason: RetryOn) -> None:
        """Reports that something else takes the place of the node."""


Try = Callable[[TriedCall, Values], Awaitable[Values]]


class _Way(NamedTuple):
    """One thing to try."""

    perform: Perform
    to: str | None = None
    """What it is called where it is a fallback."""


def with_policies(node: PlannedNode, resources: Resources) -> Try:
    """The node as it runs with its policies. Raises `KeyError` naming a model that is not there."""
    perform = performer(node.spec, resources)
    if node.retry is None and node.timeout_s is None and not node.fallback:
        return perform
    attempts, on = (1, ()) if node.retry is None else (node.retry.attempts, node.retry.on)
    ways = [_Way(perform)] * attempts + [_fallback(node.spec, each, resources) for each in node.fallback]
    timeout_s = node.timeout_s

    async def tried(call: TriedCall, inputs: Values) -> Values:
        latest = call.deadline
        failure: ClusterError | NodeBroke | None = None
        for attempt, way in enumerate(ways[call.attempt - 1 :], call.attempt):
            if failure is not None and not await _begins(way, attempt, call, failure, latest, on):
                continue
            try:
                return await _once(way.perform, call, inputs, latest, timeout_s)
            except (ClusterError, NodeBroke) as broke:
                failure = broke
        assert failure is not None
        raise failure

    return tried


async def _begins(
    way: _Way,
    attempt: int,
    call: TriedCall,
    failure: ClusterError | NodeBroke,
    latest: float,
    on: Container[RetryOn],
) -> bool:
    """Whether the next way is tried after a failure. Waits where it must."""
    reason, error = cause_of(failure), error_of(failure)
    if call.spoken or time.time() >= latest or isinstance(error, BudgetExceeded):
        return False
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
    perform: Perform, call: TriedCall, inputs: Values, latest: float, timeout_s: float | None
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


def _fallback(spec: AnySpec, fallback: Fallback, resources: Resources) -> _Way:
    if fallback.model is not None:
        return _Way(performer(replace(spec, model=fallback.model), resources), f"model {fallback.model}")
    outputs = spec.stand_in(fallback.value)
    assert outputs is not None, "validation refuses a value for a kind that has none"
    values = dict(outputs)

    async def give(_call: NodeCall, _inputs: Values) -> Values:
        return values

    return _Way(give, "value")
