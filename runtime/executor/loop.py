"""Async dataflow: a step starts the moment all it waits for is done. There are no levels and no barriers.

    a ─► b ─► d      b starts when a is done, though c may still run; d starts when b and c are.
    └──► c ──►┘      Inline steps run on the spot; each other step is a task of its own. A node that is
                     skipped counts as done.

One failure, the deadline or the reader leaving cancels every task of the run, and with it every call in an
engine; no task outlives its run. A value is let go when its last reader is done.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import msgspec

from cluster.errors import ClusterError
from cluster.messages import Message, Usage
from runtime.events import (
    MAX_OUTPUT_BYTES,
    NodeCalled,
    NodeDelta,
    NodeFailed,
    NodeFinished,
    NodeSkipped,
    NodeStarted,
)
from runtime.executor.kinds.kind import Values
from runtime.executor.prepare import ABSENT, PreparedNode, PreparedPlan, PreparedStep
from runtime.executor.queue import EventQueue

_size = msgspec.msgpack.Encoder().encode


class NodeBroke(Exception):
    """A node failed, and with it the run."""

    def __init__(self, node: str, error: ClusterError) -> None:
        super().__init__(node)
        self.node = node
        self.error = error


class RunScope(msgspec.Struct, frozen=True):
    """What all nodes of a run share."""

    run_id: str
    deadline: float
    """Unix seconds."""
    tenant: str
    priority: int
    stream: bool


class Call:
    """A `NodeCall`: what a node may know of its run, and what it reports."""

    __slots__ = ("_queue", "node", "priority", "scope", "usage")

    def __init__(self, scope: RunScope, queue: EventQueue, node: str, priority: int) -> None:
        self.scope = scope
        self.node = node
        self.priority = scope.priority + priority
        self.usage = Usage()
        self._queue = queue

    @property
    def request_id(self) -> str:
        return f"{self.scope.run_id}.{self.node}"

    @property
    def deadline(self) -> float:
        return self.scope.deadline

    @property
    def tenant(self) -> str:
        return self.scope.tenant

    @property
    def stream(self) -> bool:
        return self.scope.stream

    def called(self, model: str, prompt_tokens: int) -> None:
        self.usage = Usage(prompt_tokens)
        self._queue.put(NodeCalled(self.node, model, prompt_tokens))

    def owe(self, usage: Usage) -> None:
        self.usage = usage

    async def delta(self, text: str) -> None:
        await self._queue.put_when_room(NodeDelta(self.node, text))


class Execution:
    """One run of one plan."""

    def __init__(
        self,
        plan: PreparedPlan,
        scope: RunScope,
        inputs: dict[str, Any],
        history: list[Message],
        queue: EventQueue,
    ) -> None:
        self._plan = plan
        self._scope = scope
        self._queue = queue
        self._waiting = [step.waits_for for step in plan.steps]
        self._readers = list(plan.readers)
        self._values: list[Any] = [None] * len(plan.readers)
        for name, slot in plan.inputs:
            self._values[slot] = inputs[name]
        if plan.history is not None:
            self._values[plan.history] = history
        self._tasks = asyncio.TaskGroup()
        self._calls: list[Call] = []
        self._failure: NodeBroke | None = None
        self.running: dict[str, None] = {}
        """Nodes that have started and not ended, the first started first."""

    @property
    def usage(self) -> Usage:
        """What all nodes owe so far."""
        return sum((call.usage for call in self._calls), Usage())

    async def run(self) -> dict[str, Any]:
        """The outputs. Raises the `NodeBroke` of the first node that failed."""
        try:
            async with self._tasks:
                self._advance(list(self._plan.roots))
        except ExceptionGroup:
            if self._failure is None:
                raise
            raise self._failure from None
        return {name: get(self._values) for name, get in self._plan.outputs}

    def _advance(self, ready: list[int]) -> None:
        """The hot loop: starts what is ready, and what becomes ready by it."""
        while ready:
            step = self._plan.steps[ready.pop()]
            if step.inline:
                for node in step.nodes:
                    if not self._skips(node):
                        self._evaluate(node)
                ready += self._done(step)
            elif self._skips(step.nodes[0]):
                ready += self._done(step)
            else:
                self._tasks.create_task(self._perform(step))

    def _done(self, step: PreparedStep) -> list[int]:
        """Lets go of what nobody needs any more; the steps that waited for this one only."""
        for slot in step.reads:
            self._readers[slot] -= 1
            if self._readers[slot] == 0:
                self._values[slot] = None
        ready = []
        for successor in step.successors:
            self._waiting[successor] -= 1
            if self._waiting[successor] == 0:
                ready.append(successor)
        return ready

    def _skips(self, node: PreparedNode) -> bool:
        """Whether the node is not to be run; its outputs are absent then."""
        if node.guard is None:
            return False
        try:
            reason = node.guard(self._values)
        except ClusterError as error:
            raise self._broke(node, error) from error
        if reason is None:
            return False
        for slot in node.skipped:
            self._values[slot] = ABSENT
        self._queue.put(NodeSkipped(node.name, node.kind, reason))
        return True

    def _evaluate(self, node: PreparedNode) -> None:
        assert node.evaluate is not None
        began = self._begin(node)
        try:
            outputs = node.evaluate({port: get(self._values) for port, get in node.inputs})
        except ClusterError as error:
            raise self._broke(node, error) from error
        self._end(node, began, outputs, None)

    async def _perform(self, step: PreparedStep) -> None:
        (node,) = step.nodes
        assert node.perform is not None
        call = Call(self._scope, self._queue, node.name, step.priority)
        self._calls.append(call)
        began = self._begin(node)
        try:
            outputs = await node.perform(call, {port: get(self._values) for port, get in node.inputs})
        except ClusterError as error:
            raise self._broke(node, error) from error
        self._end(node, began, outputs, call.usage)
        self._advance(self._done(step))

    def _begin(self, node: PreparedNode) -> float:
        self.running[node.name] = None
        self._queue.put(NodeStarted(node.name, node.kind))
        return perf_counter()

    def _end(self, node: PreparedNode, began: float, outputs: Values, usage: Usage | None) -> None:
        for port, slot in node.outputs:
            self._values[slot] = outputs[port]
        seconds = perf_counter() - began
        shown = self._shown(outputs) if self._scope.stream else msgspec.UNSET
        self._queue.put(NodeFinished(node.name, seconds, usage, shown))
        del self.running[node.name]

    def _shown(self, outputs: Values) -> Values | msgspec.UnsetType:
        return msgspec.to_builtins(outputs) if len(_size(outputs)) <= MAX_OUTPUT_BYTES else msgspec.UNSET

    def _broke(self, node: PreparedNode, error: ClusterError) -> NodeBroke:
        self._queue.put(NodeFailed(node.name, error.as_failure()))
        broke = NodeBroke(node.name, error)
        self._failure = self._failure or broke
        return broke
