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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Any, cast

import msgspec

from cluster.errors import ClusterError, ReplicaLost
from cluster.messages import Usage
from cluster.stages import StageFailed
from graphs.bindings import Ref
from graphs.pipeline import RetryOn
from runtime.durability.model import Checkpoint
from runtime.events import (
    MAX_OUTPUT_BYTES,
    NodeCalled,
    NodeDelta,
    NodeFailed,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodesDropped,
    NodeSkipped,
    NodeStarted,
    NodeWaiting,
    Source,
)
from runtime.executor.ahead import may_begin
from runtime.executor.chains import PreparedChain
from runtime.executor.kinds.kind import Passed, T, Values
from runtime.executor.prepare import PreparedBody, PreparedNode, PreparedStep
from runtime.executor.run import Ledger, NodeBroke, Run
from runtime.executor.slots import ABSENT
from runtime.executor.streams import Stream

_size = msgspec.msgpack.Encoder().encode


async def execute(plan: PreparedBody, run: Run, given: Mapping[Ref, Any]) -> Values:
    """The outputs. `given` are the inputs and the context. Raises the `NodeBroke` of the node that failed."""
    return (await Execution(plan, run, given).run()).outputs


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
        self._shows = run.scope.stream
        self.live: dict[int, Stream] = {}
        """By slot: the lists that are being made and read."""
        self.values: list[Any] = [None] * len(body.readers)
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

    async def run(self) -> Passed:
        """Raises the `NodeBroke` of the first node that failed, and `NodeError` for a bad `until`."""
        try:
            async with self._tasks:
                self._advance(list(self._body.roots))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        outputs = {name: get(self.values) for name, get in self._body.outputs}
        return Passed(outputs, self._body.until is not None and self._body.until(self.values))

    def _advance(self, ready: list[int]) -> None:
        """The hot loop: starts what is ready, and what becomes ready by it."""
        while ready:
            step = self._body.steps[ready.pop()]
            if step.inline:
                for node in step.nodes:
                    if not self._passes(node):
                        self._evaluate(node)
                ready += self._end_step(step)
            elif len(step.nodes) == 1 and self._passes(step.nodes[0]):
                ready += self._released((*step.followers, *step.cautious)) + self._end_step(step)
            else:
                self._tasks.create_task(self._perform(step))
                ready += self._followers(step)

    def _end_step(self, step: PreparedStep) -> list[int]:
        """Lets go of what nobody needs any more; the steps that waited for this one only."""
        for slot in step.reads:
            self._readers[slot] -= 1
            if self._readers[slot] == 0:
                self.values[slot] = None
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
        return True

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
                    await self._await(node, step.priority)
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

    async def _await(self, node: PreparedNode, priority: int) -> None:
        assert node.perform is not None
        call = Call(self._run, self, node, priority)
        self._run.opened(call.ledger)
        began = self._begin(call.node, node)
        try:
            if node.effectful:
                await self._run.progress.committed()
            outputs = await node.perform(call, {port: get(self.values) for port, get in node.inputs})
            self._run.afford()
            if self._run.progress.keeps:
                for slot in node.follows:
                    await self._ended(slot)
        except ClusterError as error:
            raise self._broke(call.node, error) from error
        finally:
            call.rest()
            self._run.settled(call.ledger)
            self.spent += call.cost
            self._run.waiting.discard(call.node)
        self._end(call.node, node, began, outputs, call.usage if call.ledger.opened else None, call.source)

    async def _ended(self, slot: int) -> None:
        """Returns when a list that is read while it is made is all there."""
        if isinstance(self.values[slot], Stream):
            await self.values[slot].ended.wait()

    def _begin(self, path: str, node: PreparedNode) -> float:
        self._run.running[path] = self.holder
        self._run.queue.put(NodeStarted(path, node.kind))
        return perf_counter()

    def _end(
        self,
        path: str,
        node: PreparedNode,
        began: float,
        outputs: Values,
        usage: Usage | None,
        source: Source = "node",
    ) -> None:
        self._keep(node, outputs)
        for slot in node.live.values():
            self.live.pop(slot).finish(self.values[slot])
        seconds = perf_counter() - began
        if node.perform is not None and self._run.progress.keeps:
            self._run.progress.note(Checkpoint(self.try_path + node.name, outputs, usage, seconds))
        shown = _shown(outputs) if self._shows else msgspec.UNSET
        self._run.queue.put(NodeFinished(path, seconds, usage, shown, source))
        del self._run.running[path]

    def _broke(self, path: str, error: ClusterError) -> NodeBroke:
        self._run.queue.put(NodeFailed(path, error.as_failure()))
        return NodeBroke(path, error)


def _shown(outputs: Values) -> Values | msgspec.UnsetType:
    return msgspec.to_builtins(outputs) if len(_size(outputs)) <= MAX_OUTPUT_BYTES else msgspec.UNSET


class Call:
    """A `TriedCall`: what a node may know of its run, and what it reports."""

    __slots__ = (
        "_calling",
        "_calls",
        "_execution",
        "_node",
        "_run",
        "_spent",
        "_spoken",
        "_turn",
        "attempt",
        "deadline",
        "inside",
        "ledger",
        "node",
        "priority",
        "source",
        "try_path",
    )

    def __init__(self, run: Run, execution: Execution, node: PreparedNode, priority: int) -> None:
        self._run = run
        self._execution = execution
        self._node = node
        self._turn: asyncio.Lock | None = None
        """Of the one body that may run at any time, whatever others of the run do."""
        self._calls = 0
        self._calling: str | None = None
        """The model that it called last, as long as it may still."""
        self._spent: dict[str, Usage] = {}
        """By label, what bodies have come to that may have been begun ahead."""
        self.node = execution.path + node.name
        self.priority = execution.priority + priority
        self.deadline = execution.deadline
        self.ledger = Ledger()
        self._spoken = False
        self.source: Source = "node"
        """Where its outputs come from."""
        self.inside = Usage()
        """What the nodes inside it have come to in this attempt."""
        self.try_path = first = execution.try_path + node.name
        """That of this try: what it has done is kept under, and its requests are called by."""
        self.attempt = 1
        if run.progress.done:
            self.ledger.restore(run.progress.spent(first))
            self._try(run.progress.tries(first))

    @property
    def spoken(self) -> bool:
        """Whether text of it, or of a node inside it, has left, or an item that somebody has read."""
        return self._spoken or any(stream.taken for stream in self._live())

    @property
    def request_id(self) -> str:
        call = f"{self._run.request_prefix}.{self.try_path}"
        return f"{call}+{self._calls + 1}" if self._calls else call

    @property
    def graph(self) -> str:
        return self._run.scope.graph

    @property
    def run_id(self) -> str:
        return self._run.scope.run_id

    @property
    def tenant(self) -> str:
        return self._run.scope.tenant

    @property
    def stream(self) -> bool:
        return self._run.scope.stream

    @property
    def usage(self) -> Usage:
        """What it owes for its model calls so far."""
        return self.ledger.usage

    @property
    def cost(self) -> Usage:
        return self.ledger.fresh + self.inside

    def called(self, model: str, prompt_tokens: int) -> None:
        self._run.afford(prompt_tokens + 1)
        self.rest()
        self._calling = model
        self._node.load.begun(model)
        self._calls += 1
        self.ledger.called(prompt_tokens)
        self._run.queue.put(NodeCalled(self.node, model, prompt_tokens))

    def rest(self) -> None:
        """It calls no model any more."""
        if self._calling is not None:
            self._node.load.ended(self._calling)
            self._calling = None

    def owe(self, usage: Usage) -> None:
        self.ledger.owe(usage)

    def waiting(self, message: str) -> None:
        self._run.waiting.add(self.node)
        self._run.queue.put(NodeWaiting(self.node, message))

    @property
    def idempotency_key(self) -> str:
        scope = self._run.scope
        place = "\0".join((scope.tenant, scope.run_id, self.node))
        return blake2b(place.encode(), digest_size=16).hexdigest()

    async def once(self, key: str, /, work: Callable[[], Awaitable[T]]) -> T:
        found = self.kept(key)
        if found is not None:
            return cast("T", found)
        made = await work()
        self.keep(key, made)
        return made

    def keep(self, key: str, value: Any, /, supersedes: Sequence[str] = ()) -> None:
        if not self._run.progress.keeps:
            return
        over = tuple(self.try_path + label for label in supersedes)
        part = f"{self.try_path}+{key}"
        self._run.progress.note(Checkpoint(part, value, self.ledger.note(), supersedes=over))

    def kept(self, key: str, /) -> Any:
        done = self._run.progress.done
        checkpoint = done.get(f"{self.try_path}+{key}") if done else None
        return None if checkpoint is None else checkpoint.outputs

    @property
    def last_kept(self) -> int:
        return self._run.progress.last(self.try_path)

    @property
    def leaving(self) -> bool:
        return self._run.leaving

    @property
    def asks_until(self) -> float:
        until = self._run.scope.questions_until
        return self.deadline if until is None else until

    async def delta(self, text: str) -> None:
        speaker: Call | None = self
        while speaker is not None and not speaker._spoken:
            speaker._spoken = True
            speaker = speaker._execution.around
        await self._run.queue.put_when_room(NodeDelta(self.node, text))

    def retried(self, attempt: int, reason: RetryOn) -> None:
        self._run.queue.put(NodeRetried(self.node, attempt, reason))
        self._start_over(attempt)

    def fell_back(self, attempt: int, to: str, reason: RetryOn) -> None:
        self._run.queue.put(NodeFellBack(self.node, to, reason))
        self._start_over(attempt)

    def _start_over(self, attempt: int) -> None:
        self._run.forget_inside(self.node)
        for stream in self._live():
            stream.clear()
        self._calls = 0
        self._try(attempt)
        if self._run.progress.keeps:
            self._run.progress.note(Checkpoint(self.try_path, attempt, self.ledger.note()))

    def _try(self, number: int) -> None:
        self.attempt = number
        if number > 1:
            self.try_path = f"{self._execution.try_path}{self._node.name}~{number}"

    @property
    def followed(self) -> bool:
        return bool(self._node.live)

    def follows(self, port: str) -> bool:
        return port in self._node.live

    async def put(self, port: str, item: Any) -> None:
        if port in self._node.live:
            await self._execution.live[self._node.live[port]].put(item)

    def _live(self) -> list[Stream]:
        return [self._execution.live[slot] for slot in self._node.live.values()]

    @property
    def values(self) -> list[Any]:
        """The slots around the bodies of the node."""
        return self._execution.values

    @property
    def bodies(self) -> Mapping[str, Sequence[str]]:
        return {key: [name for name, _ in body.outputs] for key, body in self._node.bodies.items()}

    def holds(self, body: str) -> bool:
        holds = self._node.bodies[body].holds
        return holds is None or holds(self.values)

    async def run(self, body: str, given: Mapping[Ref, Any], label: str) -> Passed:
        await self._run.queue.room()
        if self._turn is None:
            self._turn = asyncio.Lock()
        room = self._run.room_beside
        async with room if self._turn.locked() and not room.locked() else self._turn:
            return await self._enter(body, given, label)

    async def _enter(self, body: str, given: Mapping[Ref, Any], label: str) -> Passed:
        execution = Execution(self._node.bodies[body], self._run, given, self, label)
        try:
            return await execution.run()
        except NodeBroke:
            self._run.forget_inside(f"{self.node}{label}")
            raise
        finally:
            self.inside += execution.spent
            if self._node.ahead:
                self._spent[label] = execution.spent

    @property
    def ahead(self) -> Sequence[str]:
        node, scope = self._node, self._run.scope
        if not node.ahead:
            return ()
        left = None if scope.token_budget is None else scope.token_budget - self._run.usage.total_tokens
        return may_begin(node.ahead, node.load.of, left, stream=scope.stream)

    def dropped(self, label: str) -> Usage:
        lost, path = self._spent.pop(label, Usage()), f"{self.node}{label}"
        self._run.forget_inside(path)
        self._run.queue.put(NodesDropped(path, lost))
        return lost
