"""One run of one node: what the node may know of its run, and what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Any, Protocol, cast

from cluster.messages import Usage
from graphs.bindings import Ref
from graphs.pipeline import RetryOn
from runtime.durability.model import Checkpoint
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFellBack,
    NodeRetried,
    NodesDropped,
    NodeStarted,
    NodeWaiting,
    Source,
)
from runtime.executor.ahead import begin, may_begin
from runtime.executor.kinds.kind import Passed, T
from runtime.executor.prepare import PreparedBody, PreparedNode
from runtime.executor.run import Ledger, NodeBroke, Run
from runtime.executor.streams import Stream
from runtime.executor.warming import met


class Scope(Protocol):
    """The execution that a node is in, as its call sees it."""

    around: Call | None
    path: str
    try_path: str
    deadline: float
    priority: int
    values: list[Any]
    live: dict[int, Stream]
    spent: Usage

    def inside(self, body: PreparedBody, given: Mapping[Ref, Any], around: Call, label: str) -> Scope:
        """An execution of a body inside this one."""
        ...

    async def run(self) -> Passed:
        """Raises the `NodeBroke` of the first node that failed, and `NodeError` for a bad `until`."""
        ...


class Call:
    """A `TriedCall`: what a node may know of its run, and what it reports."""

    __slots__ = (
        "_begun",
        "_calling",
        "_calls",
        "_execution",
        "_node",
        "_run",
        "_spent",
        "_spoken",
        "_turn",
        "attempt",
        "began",
        "deadline",
        "inside",
        "ledger",
        "node",
        "priority",
        "source",
        "try_path",
    )

    def __init__(self, run: Run, execution: Scope, node: PreparedNode, priority: int) -> None:
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
        self._begun: dict[str, asyncio.Task[Passed]] = {}
        """By key, the bodies that have begun before it."""
        self.began: float | None = None
        """When the first of them did, in seconds of `perf_counter`."""
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
        if self._node.prefix is not None:
            met(self._run, self._node.savings.warmth, model, self._node.prefix)
        self._node.savings.load.begun(model)
        self._calls += 1
        self.ledger.called(model, prompt_tokens)
        self._run.queue.put(NodeCalled(self.node, model, prompt_tokens))

    def rest(self) -> None:
        """It calls no model any more."""
        if self._calling is not None:
            self._node.savings.load.ended(self._calling)
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
        execution = self._execution.inside(self._node.bodies[body], given, self, label)
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
        return may_begin(node.ahead, node.savings.load.of, self._run.tokens_left, stream=scope.stream)

    def begin(self, body: str) -> None:
        """Runs a body before it is known whether it is wanted."""
        if self.began is None:
            self.began = perf_counter()
            self._run.queue.put(NodeStarted(self.node, self._node.kind))
        self._begun[body] = begin(self, body)

    def take_begun(self) -> dict[str, asyncio.Task[Passed]]:
        begun, self._begun = self._begun, {}
        return begun

    def dropped(self, label: str) -> Usage:
        lost, path = self._spent.pop(label, Usage()), f"{self.node}{label}"
        self._run.forget_inside(path)
        self._run.queue.put(NodesDropped(path, lost))
        return lost
