"""What a client is told of a run: its events, what it came to, or where to look for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cluster.messages import Failure, Message, Usage
from runtime.durability.model import Numbered
from runtime.events import (
    NodeFailed,
    NodeFinished,
    NodeSkipped,
    NodeStarted,
    RunEvent,
    RunFailed,
    RunFinished,
    RunStarted,
    RunSuspended,
    to_json,
)
from runtime.records.model import MAX_NODES
from runtime.request import RunRequest
from runtime.runner import ChatBinding
from serve_apps.gateway.conversation import Conversation
from serve_apps.gateway.failures import answer_to_failure
from serve_apps.gateway.following import is_over, unfinished
from serve_apps.gateway.graph_calls import as_text, run_failure
from serve_apps.gateway.http import JSON_TYPE, Exchange
from serve_apps.translators.openai_replies import ContextVersion


class NodeReport(Struct, frozen=True):
    """One node of a finished run. One inside a `map` or `loop` is told of for each item or pass."""

    node: str
    """Its path: `search[3].each` for one inside another."""
    kind: str
    status: Literal["succeeded", "skipped"]
    seconds: float
    usage: Usage | UnsetType = UNSET
    """Of its own model calls; absent where it made none."""
    reason: str | UnsetType = UNSET
    """For people: why it was skipped."""


class RunAnswer(Struct, frozen=True):
    """A finished run."""

    run_id: str
    graph: str
    version: str
    outputs: dict[str, Any]
    usage: Usage
    """Summed over all nodes."""
    seconds: float
    nodes: list[NodeReport]
    """In the order in which they finished."""
    nodes_left_out: int
    """Further nodes, past the first thousand."""
    status: Literal["succeeded"] = "succeeded"


class RunLinks(Struct, frozen=True):
    """Where more is to be had of a run, as paths of this server."""

    self: str
    events: str
    cancel: str
    approvals: str


class RunAccepted(Struct, frozen=True):
    """A run that goes on by itself, or waits for people."""

    run_id: str
    graph: str
    status: Literal["running", "suspended"]
    links: RunLinks


encode = msgspec.json.Encoder().encode


class RunReport:
    """Gathers the events of a run into its answer."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._nodes: dict[str, NodeReport] = {}
        """By path: of what a second runner has done again only the last word counts."""
        self._left_out = 0
        self._started: RunStarted | None = None

    def add(self, event: RunEvent) -> None:
        match event:
            case RunStarted():
                self._started = event
            case NodeStarted(node=node, kind=kind):
                self._kinds[node] = kind
            case NodeSkipped(node=node, kind=kind, reason=reason):
                self._tell(NodeReport(node, kind, "skipped", 0.0, reason=reason))
            case NodeFinished(node=node, seconds=seconds, usage=usage):
                kind, used = self._kinds.pop(node, ""), UNSET if usage is None else usage
                self._tell(NodeReport(node, kind, "succeeded", seconds, used))
            case _:
                pass

    def _tell(self, report: NodeReport) -> None:
        if len(self._nodes) < MAX_NODES or report.node in self._nodes:
            self._nodes[report.node] = report
        else:
            self._left_out += 1

    def answer(self, run: RunRequest, version: str, end: RunFinished) -> RunAnswer:
        started = self._started
        return RunAnswer(
            run_id=run.run_id,
            graph=run.graph if started is None else started.graph,
            version=version if started is None else started.version,
            outputs=end.outputs,
            usage=end.usage,
            seconds=end.seconds,
            nodes=list(self._nodes.values()),
            nodes_left_out=self._left_out,
        )


class Keeping(Struct, frozen=True):
    """The conversation that a run is a turn of."""

    conversation: Conversation
    binding: ChatBinding

    async def keep(self, run: RunRequest, end: RunFinished) -> ContextVersion:
        asked = Message(role="user", content=as_text(run.inputs[self.binding.input]))
        reply = Message(role="assistant", content=as_text(end.outputs[self.binding.output]))
        return await self.conversation.keep([asked], reply)


async def tell_answer(
    exchange: Exchange,
    run: RunRequest,
    version: str,
    events: AsyncGenerator[list[RunEvent], None],
    keeping: Keeping | None = None,
) -> None:
    """What the run comes to, once it does. One that waits for people is accepted.

    Raises `GatewayError` where it fails, `EngineFailed` where it has no end.
    """
    report = RunReport()
    end: RunFinished | RunSuspended | None = None
    async with aclosing(events) as batches:
        async for batch in batches:
            for event in batch:
                report.add(event)
                if isinstance(event, RunFailed):
                    raise run_failure(event, run.run_id)
                if isinstance(event, RunFinished | RunSuspended):
                    end = event
    match end:
        case None:
            raise unfinished()
        case RunSuspended():
            await tell_accepted(exchange, run.run_id, run.graph, "suspended")
        case RunFinished():
            if keeping is not None:
                kept = await keeping.keep(run, end)
                exchange.added_headers.append((b"x-context-version", b"%d" % kept.version))
            await exchange.respond(200, encode(report.answer(run, version, end)))


async def tell_events(
    exchange: Exchange,
    run: RunRequest,
    events: AsyncGenerator[list[RunEvent], None],
    keeping: Keeping | None = None,
) -> None:
    """Events as they come. A run that is refused before anything was sent has an error status instead.

    Raises as `tell_answer`.
    """
    exchange.error_event = b"event: error\n"
    async with aclosing(events) as batches:
        async for batch in batches:
            last = batch[-1]
            if not exchange.started:
                if isinstance(last, RunFailed):
                    raise run_failure(last, run.run_id)
                await exchange.start_stream()
            out = b"".join(event_bytes(event, run.run_id) for event in batch[:-1])
            if isinstance(last, RunFinished) and keeping is not None:
                out += _sse(b"context_kept", encode(await keeping.keep(run, last)))
            out += event_bytes(last, run.run_id)
            if is_over(last):
                return await exchange.end(out)
            await exchange.write(out)
    raise unfinished()


async def tell_numbered(
    exchange: Exchange, run_id: str, events: AsyncGenerator[list[Numbered], None]
) -> None:
    """Events that are kept, with their numbers: a client that lost its connection says the last it saw."""
    exchange.error_event = b"event: error\n"
    await exchange.start_stream()
    async with aclosing(events) as batches:
        async for batch in batches:
            await exchange.write(b"".join(event_bytes(each.event, run_id, each.number) for each in batch))
    await exchange.end()


async def tell_accepted(
    exchange: Exchange, run_id: str, graph: str, status: Literal["running", "suspended"] = "running"
) -> None:
    """That the run goes on by itself, and where to look for it."""
    here = f"/v1/runs/{run_id}"
    links = RunLinks(here, f"{here}/events", f"{here}/cancel", f"{here}/approvals")
    answer = RunAccepted(run_id, graph, status, links)
    await exchange.respond(202, encode(answer), [JSON_TYPE, (b"location", here.encode())])


def event_bytes(event: RunEvent, run_id: str, number: int | None = None) -> bytes:
    """The event as a stranger may read it: what went wrong inside is for the log."""
    if isinstance(event, NodeFailed | RunFailed):
        answer = answer_to_failure(event.failure, run_id)
        failure = Failure(event.failure.kind, answer.message, answer.param, answer.retry_after_s)
        event = msgspec.structs.replace(event, failure=failure)
    told = _sse(str(type(event).__struct_config__.tag).encode(), to_json(event))
    return told if number is None else b"id: %d\n%b" % (number, told)


def _sse(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)
