"""Async dataflow: a step starts the moment all it waits for is done. There are no levels and no barriers.

    a ─► b ─► d      b starts when a is done, though c may still run; d starts when b and c are.
    └──► c ──►┘      Inline steps run on the spot; each other step is a task of its own. A node that is
                     skipped counts as done.

A step that takes nothing of another but lists that it reads while they are made (`streams`) starts the moment
that one does.

A node with bodies runs each as an execution inside this one, with values of its own. One failure, the
deadline or the reader leaving cancels every task of the run, and with it every call in an engine; no task
outlives its run. A value is let go when its last reader is done: one that a body captures, when the node is
done that the body is in.

What an earlier attempt has done is not done again (`progress`): such a node gives its outputs when its turn
comes, without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import msgspec

from cluster.errors import ClusterError, ReplicaLost
from cluster.messages import Usage
from cluster.stages import StageFailed
from graphs.bindings import Ref
from runtime.durability.model import Checkpoint
from runtime.events import (
    MAX_OUTPUT_BYTES,
    NodeFailed,
    NodeFinished,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    Source,
)
from runtime.executor.call import Call
from runtime.executor.chains import PreparedChain
from runtime.executor.early import Early
from runtime.executor.kinds.kind import Passed, Values
from runtime.executor.prepare import EarlyStart, PreparedBody, PreparedNode, PreparedStep
from runtime.executor.run import Ledger, NodeBroke, Run
from runtime.executor.slots import ABSENT, PENDING
from runtime.executor.streams import Stream
from runtime.executor.warming import begin, end_reading

_size = msgspec.msgpack.Encoder().encode


async def execute(plan: PreparedBody, run: Run, given: Mapping[Ref, Any]) -> Values:
    """The outputs. `given` are the inputs and the context. Raises the `NodeBroke` of the node that failed."""
    try:
        return (await Execution(plan, run, given).run()).outputs
    finally:
        await end_reading(run)


class Execution:
    """One run of the nodes of a plan, or of one body inside it."""

    def __init__(
        self,
        body: PreparedBody,
        run: Run,
        given: Mapping[Ref, Any],
        around: Call | None = None,
        label: str = "",
    ) -> None:
        self._body = body
        self._run = run
        self.around = around
        self._waiting = [step.waits_for for step in body.steps]
        self._readers = list(body.readers)
        self._tasks = asyncio.TaskGroup()
        self._early = Early(run)
        self._shows = run.scope.stream
        self.live: dict[int, Stream] = {}
        """By slot: the lists that are being made and read."""
        self.values: list[Any] = [PENDING] * len(body.readers)
        for ref, slot in body.given:
            self.values[slot] = given[ref]
        self.spent = Usage()
        """What its nodes have come to, with all that was done inside them."""
        self._done = run.progress.done
        if around is None:
            self.path, self.try_path, self.holder = "", "", ""
            self.deadline, self.priority = run.scope.deadline, run.scope.priority
        else:
            self.path, self.try_path = f"{around.node}{label}.", f"{around.try_path}{label}."
            self.holder, self.deadline, self.priority = around.node, around.deadline, around.priority
            for outer, slot in body.captured:
                self.values[slot] = around.values[outer]

    def inside(self, body: PreparedBody, given: Mapping[Ref, Any], around: Call, label: str) -> Execution:
        """An execution of a body inside this one."""
        return Execution(body, self._run, given, around, label)

    async def run(self) -> Passed:
        """Raises the `NodeBroke` of the first node that failed, and `NodeError` for a bad `until`."""
        try:
            async with self._tasks:
                begin(self._run, self._body.beginnings, self.path)
                self._advance(list(self._body.roots))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self.spent += await self._early.end()
        outputs = {name: get(self.values) for name, get in self._body.outputs}
        return Passed(outputs, self._body.until is not None and self._body.until(self.values))

    def _advance(self, ready: list[int]) -> None:
        """The hot loop: starts what is ready, and what becomes ready by it; last what may be in vain."""
        chances = []
        while ready:
            step = self._body.steps[ready.pop()]
            if step.inline:
                for node in step.nodes:
                    if not self._passes(node):
                        self._evaluate(node)
                ready += self._end_step(step)
            elif step.early is not None:
                chances.append((step.nodes[0], step.early, step.priority))
            elif len(step.nodes) == 1 and self._passes(step.nodes[0]):
                ready += self._released((*step.followers, *step.cautious)) + self._end_step(step)
            else:
                self._tasks.create_task(self._perform(step))
                ready += self._followers(step)
        for chance in chances:
            self._begin_early(*chance)

    def _end_step(self, step: PreparedStep) -> list[int]:
        """Lets go of what nobody needs any more, and has read ahead what the time is for; the steps that
        waited for this one only."""
        for slot in step.reads:
            self._readers[slot] -= 1
            if self._readers[slot] == 0:
                self.values[slot] = None
        begin(self._run, step.beginnings, self.path)
        return self._released(step.successors)

    def _followers(self, step: PreparedStep) -> list[int]:
        """Opens the lists that others read while the step runs; the steps that waited for its start only."""
        if not (step.followers or step.cautious):
            return []
        for node in step.nodes:
            for slot in node.live.values():
                self.values[slot] = self.live[slot] = Stream()
        if self._done:
            for follower in (*step.followers, *step.cautious):
                self._run.progress.forget(self.try_path + self._body.steps[follower].nodes[0].name)
        waiting = () if self._run.progress.commits else step.cautious
        return self._released((*step.followers, *waiting))

    def _released(self, steps: Sequence[int]) -> list[int]:
        """Those of some steps that wait for nothing more, now that they wait for one thing less."""
        ready = []
        for step in steps:
            self._waiting[step] -= 1
            if self._waiting[step] == 0:
                ready.append(step)
        return ready

    def _passes(self, node: PreparedNode) -> bool:
        """Whether the node is not to be run: it was done before, or its outputs are absent."""
        if self._done and self._restores(node):
            return True
        if node.guard is None:
            return False
        path = self.path + node.name
        try:
            reason = node.guard(self.values)
        except ClusterError as error:
            raise self._broke(path, error) from error
        if reason is None:
            return False
        self._leave_out(node)
        self._run.queue.put(NodeSkipped(path, node.kind, reason))
        if node.name in self._early:
            self._tasks.create_task(self._early.drop(node.name, node.kind, node.savings.counts))
        return True

    def _begin_early(self, node: PreparedNode, early: EarlyStart, priority: int) -> None:
        """Begins a node whose condition is not known yet, or a case of it, where that may be."""
        known = self._waiting[early.step] == 0 or self.try_path + node.name in self._done
        if known or not self._early.may_begin(node, early, self.values):
            return
        call = self._early.call_of(node.name) or Call(self._run, self, node, priority)
        if early.premises is None:
            self._early.begin(node.name, call, self._await(node, call))
        elif call.attempt == 1:
            self._early.begin_case(node.name, call, early.candidate)

    def _restores(self, node: PreparedNode) -> bool:
        checkpoint = self._done.get(self.try_path + node.name)
        if checkpoint is None:
            return False
        if checkpoint.skipped:
            self._leave_out(node)
        else:
            self._keep(node, checkpoint.outputs)
        return True

    def _leave_out(self, node: PreparedNode) -> None:
        for slot in node.skipped:
            self.values[slot] = ABSENT

    def _keep(self, node: PreparedNode, outputs: Values) -> None:
        for port, slot in node.outputs:
            self.values[slot] = outputs[port]
        for slot, derive in node.derived:
            self.values[slot] = derive(outputs)

    def _evaluate(self, node: PreparedNode) -> None:
        assert node.evaluate is not None
        path = self.path + node.name
        began = self._begin(path, node)
        try:
            outputs = node.evaluate({port: get(self.values) for port, get in node.inputs})
        except ClusterError as error:
            raise self._broke(path, error) from error
        self._end(path, node, began, outputs, None)

    async def _perform(self, step: PreparedStep) -> None:
        if step.chain is None or not await self._pass_through(step.nodes, step.chain):
            for node in step.nodes:
                if len(step.nodes) == 1 or not self._passes(node):
                    call, work = self._early.take(node.name)
                    call = call or Call(self._run, self, node, step.priority)
                    await (work or self._await(node, call))
        released = self._released(step.cautious) if self._run.progress.commits else []
        self._advance(released + self._end_step(step))

    async def _pass_through(self, nodes: Sequence[PreparedNode], chain: PreparedChain) -> bool:
        """Sends the values down a chain of processes; whether it could be done."""
        if not chain.stages.ready or any(self.try_path + node.name in self._done for node in nodes):
            return False
        paths = [self.path + node.name for node in nodes]
        for path, node in zip(paths, nodes, strict=True):
            self._begin(path, node)
        if not chain.repeatable:
            await self._run.progress.committed()
        try:
            made = await chain.stages.run(chain.inputs(self.values))
        except StageFailed as failed:
            raise self._broke(paths[failed.stage], failed.error) from failed
        except ReplicaLost as lost:
            if not chain.repeatable:
                raise self._broke(paths[0], lost) from lost
            for path in paths:
                del self._run.running[path]
                self._run.queue.put(NodeRetried(path, 2, "unavailable"))
            return False
        except ClusterError as error:
            raise self._broke(paths[0], error) from error
        for path, node, each in zip(paths, nodes, made, strict=True):
            self._end(path, node, perf_counter() - each.seconds, each.outputs, None)
        return True

    async def _await(self, node: PreparedNode, call: Call) -> None:
        assert node.perform is not None
        self._run.opened(call.ledger)
        began, finished = self._begin(call.node, node, call.began), False
        try:
            if node.effectful:
                await self._run.progress.committed()
            outputs = await node.perform(call, {port: get(self.values) for port, get in node.inputs})
            self._run.afford()
            if self._run.progress.keeps:
                for slot in node.follows:
                    await self._ended(slot)
            finished = True
        except ClusterError as error:
            raise self._broke(call.node, error) from error
        finally:
            call.rest()
            self._run.settled(call.ledger)
            if not finished:
                self._run.unfinished(call.node, call.ledger)
            self.spent += call.cost
            self._run.waiting.discard(call.node)
        self._end(call.node, node, began, outputs, call.ledger, call.source)

    async def _ended(self, slot: int) -> None:
        """Returns when a list that is read while it is made is all there."""
        if isinstance(self.values[slot], Stream):
            await self.values[slot].ended.wait()

    def _begin(self, path: str, node: PreparedNode, began: float | None = None) -> float:
        """When it began; `began` where bodies of it did before, and that was told."""
        self._run.running[path] = self.holder
        if began is not None:
            return began
        self._run.queue.put(NodeStarted(path, node.kind))
        return perf_counter()

    def _end(
        self,
        path: str,
        node: PreparedNode,
        began: float,
        outputs: Values,
        ledger: Ledger | None,
        source: Source = "node",
    ) -> None:
        self._keep(node, outputs)
        for slot in node.live.values():
            self.live.pop(slot).finish(self.values[slot])
        seconds = perf_counter() - began
        usage, models = (None, _ONE_MODEL) if ledger is None else _owed(ledger)
        if node.perform is not None and self._run.progress.keeps:
            self._run.progress.note(Checkpoint(self.try_path + node.name, outputs, usage, seconds))
        shown = _shown(outputs) if self._shows else msgspec.UNSET
        self._run.queue.put(NodeFinished(path, seconds, usage, shown, source, models))
        del self._run.running[path]

    def _broke(self, path: str, error: ClusterError) -> NodeBroke:
        self._run.queue.put(NodeFailed(path, error.as_failure()))
        return NodeBroke(path, error)


_ONE_MODEL: Final[dict[str, Usage]] = {}


def _owed(ledger: Ledger) -> tuple[Usage | None, dict[str, Usage]]:
    """What a node owes, and by model where it called more than one."""
    if not ledger.opened:
        return None, _ONE_MODEL
    models = ledger.by_model
    return ledger.usage, models if len(models) > 1 else _ONE_MODEL


def _shown(outputs: Values) -> Values | msgspec.UnsetType:
    return msgspec.to_builtins(outputs) if len(_size(outputs)) <= MAX_OUTPUT_BYTES else msgspec.UNSET
