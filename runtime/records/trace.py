"""A run's record, made of its events as they happen.

    RunStarted  NodeStarted a      NodeFinished a   RunFinished       events, and when they happened
    0.00        0.01               0.41             0.42
                a: running 0.01    a: 0.40 s        succeeded         what is known then

A trace is told the time and knows no clock. It is bounded: of nodes beyond `MAX_NODES` it keeps a number,
and of their text nothing.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

import msgspec

from cluster.messages import Usage
from runtime.errors import RunCancelled
from runtime.events import (
    NodeFailed,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodesDropped,
    NodeSkipped,
    NodeStarted,
    NodeWaiting,
    RunEvent,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    RunSuspended,
    Source,
)
from runtime.records.model import MAX_NODES, NodeRecord, NodeStatus, RunFault, RunRecord, RunStatus, keep
from runtime.request import RunRequest

_INDEX = re.compile(r"\[[0-9]+\]$")
_CANCELLED = RunCancelled.__name__
AT_WORK: Container[NodeStatus] = ("running", "waiting")


class _Node(msgspec.Struct):
    """A node so far."""

    kind: str
    status: NodeStatus
    started: float
    seconds: float = 0.0
    usage: Usage | None = None
    attempts: int = 1
    reason: str = ""
    fell_back_to: str = ""
    source: Source = "node"
    dropped: bool = False


class Trace:
    """What is known of one run so far."""

    def __init__(self, request: RunRequest, started: float, attempt: int = 1) -> None:
        """`started` is Unix seconds: when the run began, whichever process began it."""
        self._attempt = attempt
        self._request = request
        self._started = started
        self._accepted: RunStarted | None = None
        self._ended: RunFinished | RunFailed | RunSuspended | None = None
        self._nodes: dict[str, _Node] = {}
        self._inside: dict[str, set[str]] = {}
        """By node that holds others: those of them that run."""
        self._left_out = 0
        self._seconds = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the run has begun: one that is refused has no record."""
        return self._accepted is not None

    def replay(self, events: Iterable[RunEvent]) -> None:
        """Events of earlier attempts, of which nobody knows when they happened: the earliest that can be."""
        now = 0.0
        for event in events:
            if isinstance(event, NodeFinished) and event.node in self._nodes:
                now = max(now, self._nodes[event.node].started + event.seconds)
            self.add(event, now)

    def add(self, event: RunEvent, at: float) -> None:
        """An event that happened `at` seconds after the start."""
        self._seconds = at
        match event:
            case NodeStarted(node=node, kind=kind):
                self._enter(node, _Node(kind, "running", at))
            case NodeSkipped(node=node, kind=kind, reason=reason):
                self._enter(node, _Node(kind, "skipped", at, reason=reason))
            case NodeWaiting(node=node) if node in self._nodes:
                self._nodes[node].status = "waiting"
            case NodeFinished(node=node, seconds=seconds, usage=usage, source=source):
                self._leave(node, "succeeded", seconds, usage)
                if node in self._nodes:
                    self._nodes[node].source = source
            case NodeFailed(node=node):
                self._leave(node, "failed", None, None)
            case NodeRetried(node=node, attempt=attempt):
                self._give_up_inside(node)
                if node in self._nodes:
                    self._nodes[node].attempts = attempt
            case NodeFellBack(node=node, to=to):
                self._give_up_inside(node)
                if node in self._nodes:
                    self._nodes[node].fell_back_to = to
            case NodesDropped(node=path):
                self._drop(path)
            case _:
                self._of_run(event)

    def _of_run(self, event: RunEvent) -> None:
        match event:
            case RunStarted():
                self._accepted = event
            case RunResumed():
                self._ended = None
                for name in [name for name, node in self._nodes.items() if node.status in AT_WORK]:
                    self._leave(name, "cancelled", None, None)
            case RunFinished() | RunFailed() | RunSuspended():
                self._ended = event
            case _:
                pass

    def record(self) -> RunRecord:
        """The record as of the last event. The run must be `accepted`."""
        assert self._accepted is not None
        request, began, ended = self._request, self._accepted, self._ended
        outputs: dict[str, Any] = ended.outputs if isinstance(ended, RunFinished) else {}
        return RunRecord(
            run_id=request.run_id,
            tenant=request.tenant,
            graph=began.graph,
            version=began.version,
            plan_hash=began.plan_hash,
            status=_status(ended),
            started=self._started,
            deadline=request.deadline,
            attempt=self._attempt,
            seconds=self._seconds if ended is None else ended.seconds,
            usage=self._usage() if ended is None else ended.usage,
            error=_fault(ended) if isinstance(ended, RunFailed) else None,
            inputs=keep(request.inputs),
            outputs=keep(outputs),
            nodes=[self._node(name, node) for name, node in self._nodes.items()],
            nodes_left_out=self._left_out,
        )

    def _enter(self, name: str, node: _Node) -> None:
        if len(self._nodes) >= MAX_NODES and name not in self._nodes:
            self._left_out += 1
            return
        self._nodes[name] = node
        if node.status == "running" and (holder := self._holder(name)):
            self._inside.setdefault(holder, set()).add(name)

    def _leave(self, name: str, status: NodeStatus, seconds: float | None, usage: Usage | None) -> None:
        node = self._nodes.get(name)
        if node is None:
            return
        node.status = status
        node.seconds = self._seconds - node.started if seconds is None else seconds
        node.usage = usage
        self._inside.get(self._holder(name), set()).discard(name)

    def _give_up_inside(self, holder: str) -> None:
        """What runs inside a node that starts over ends without a word of its own."""
        for name in self._inside.pop(holder, set()):
            self._leave(name, "cancelled", None, None)
            self._give_up_inside(name)

    def _drop(self, path: str) -> None:
        """All that began ahead below a path was in vain."""
        for name, node in self._nodes.items():
            if name == path or name.startswith((f"{path}.", f"{path}[")):
                node.dropped = True
                if node.status in AT_WORK:
                    self._leave(name, "cancelled", None, None)

    def _holder(self, name: str) -> str:
        """The node that a node is in: `search` of `search[3].each`, `pick` of `pick.0.step`; else nothing."""
        path = name
        while path:
            path = path.rpartition(".")[0]
            holder = _INDEX.sub("", path)
            if holder in self._nodes:
                return holder
        return ""

    def _usage(self) -> Usage:
        return sum((node.usage for node in self._nodes.values() if node.usage is not None), Usage())

    def _node(self, name: str, node: _Node) -> NodeRecord:
        status, seconds = node.status, node.seconds
        if status in AT_WORK:
            seconds = self._seconds - node.started
            status = "cancelled" if isinstance(self._ended, RunFinished | RunFailed) else status
        return NodeRecord(
            name,
            node.kind,
            status,
            node.started,
            seconds,
            node.usage,
            node.attempts,
            node.reason,
            node.fell_back_to,
            node.source,
            node.dropped,
        )


def _status(ended: RunFinished | RunFailed | RunSuspended | None) -> RunStatus:
    match ended:
        case None:
            return "running"
        case RunSuspended():
            return "suspended"
        case RunFinished():
            return "succeeded"
        case RunFailed():
            return "cancelled" if ended.failure.kind == _CANCELLED else "failed"


def _fault(ended: RunFailed) -> RunFault:
    return RunFault(ended.failure.kind, ended.failure.message, ended.node)
