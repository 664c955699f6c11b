"""`POST /v1/graphs/{name}/runs`, as a raw ASGI endpoint, and what can be said of graphs.

A run answers as one JSON object, or as server-sent events: one for each event of the run, named by its
type, the last of them `run_finished` or `run_failed`. A run in a conversation tells `context_kept` before
`run_finished`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HTTPRequest
from msgspec import UNSET, Struct, UnsetType

from cluster.errors import EngineFailed, ModelUnavailable
from cluster.messages import Failure, Message, Usage
from runtime.events import (
    NodeFailed,
    NodeFinished,
    NodeSkipped,
    NodeStarted,
    RunEvent,
    RunFailed,
    RunFinished,
    RunStarted,
    to_json,
)
from runtime.records.model import MAX_NODES
from runtime.request import RunRequest
from runtime.runner import ChatBinding, GraphInfo, validate_inputs
from serve_apps.api.common import json_response, key_of
from serve_apps.gateway.charging import charged
from serve_apps.gateway.conversation import Conversation, open_conversation
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.failures import answer_to_failure
from serve_apps.gateway.graph_calls import as_text, run_events, run_failure
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.metering import RunMeter
from serve_apps.gateway.routing import GRAPH_PREFIX, find_graph, known_graph, may_use
from serve_apps.translators.decoding import BodyDecoder, check_free_form
from serve_apps.translators.openai import ContextId
from serve_apps.translators.openai_replies import ContextVersion


class RunBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/graphs/{name}/runs`."""

    inputs: dict[str, Any]
    """By name, as the graph's `inputs` schema says."""
    context_id: ContextId | None = msgspec.field(default=None, name="contextId")
    """Continues the conversation kept under this id, of a graph that can be chatted with."""
    stream: bool | None = None
    """Events as they happen. So does `Accept: text/event-stream`."""


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


_decode_body = BodyDecoder(RunBody).decode
_encode = msgspec.json.Encoder().encode


class RunReport:
    """Gathers the events of a run into its answer."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._nodes: list[NodeReport] = []
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
        if len(self._nodes) < MAX_NODES:
            self._nodes.append(report)
        else:
            self._left_out += 1

    def answer(self, run: RunRequest, version: str, end: RunFinished) -> RunAnswer:
        version = self._started.version if self._started else version
        return RunAnswer(
            run_id=run.run_id,
            graph=run.graph,
            version=version,
            outputs=end.outputs,
            usage=end.usage,
            seconds=end.seconds,
            nodes=self._nodes,
            nodes_left_out=self._left_out,
        )


async def run_graph(request: Request) -> None:
    gateway, exchange, key = request
    body = _decode_body(await exchange.body(gateway.settings.max_body_bytes))
    check_free_form(body.inputs, "inputs")
    info = find_graph(request, exchange.path.split("/")[3])
    inputs = validate_inputs(info.inputs, body.inputs)
    conversation = await open_conversation(request, body.context_id)
    if conversation is not None and info.chat is None:
        raise BadRequest("This graph keeps no conversation: it has no chat binding.", param="contextId")
    if gateway.runner is None:
        raise ModelUnavailable("no runner is deployed")
    streamed = bool(body.stream) or exchange.wants_events
    run = RunRequest(
        run_id=exchange.id,
        graph=info.name,
        inputs=inputs,
        deadline=exchange.deadline,
        tenant=key.tenant,
        history=conversation.history if conversation is not None and info.reads_history else [],
        stream=streamed,
    )
    meter = RunMeter()
    async with charged(request, meter, info.token_bound):
        exchange.added_headers.append((b"x-run-id", exchange.id.encode()))
        events = run_events(gateway.runner, run, meter)
        tell = _stream if streamed else _answer
        await tell(exchange, run, info, events, conversation)


async def _answer(
    exchange: Exchange,
    run: RunRequest,
    info: GraphInfo,
    events: AsyncGenerator[list[RunEvent], None],
    conversation: Conversation | None,
) -> None:
    report = RunReport()
    end: RunFinished | None = None
    async with aclosing(events) as batches:
        async for batch in batches:
            for event in batch:
                report.add(event)
                if isinstance(event, RunFailed):
                    raise run_failure(event, run.run_id)
                if isinstance(event, RunFinished):
                    end = event
    if end is None:
        raise EngineFailed("the run ended before it was complete")
    if kept := await _keep(conversation, info.chat, run, end):
        exchange.added_headers.append((b"x-context-version", b"%d" % kept.version))
    await exchange.respond(200, _encode(report.answer(run, info.version, end)))


async def _stream(
    exchange: Exchange,
    run: RunRequest,
    info: GraphInfo,
    events: AsyncGenerator[list[RunEvent], None],
    conversation: Conversation | None,
) -> None:
    """Events as they come. A run that is refused before anything was sent has an error status instead."""
    exchange.error_event = b"event: error\n"
    async with aclosing(events) as batches:
        async for batch in batches:
            last = batch[-1]
            if not exchange.started:
                if isinstance(last, RunFailed):
                    raise run_failure(last, run.run_id)
                await exchange.start_stream()
            out = b"".join(_event(event, run.run_id) for event in batch[:-1])
            if isinstance(last, RunFinished) and (kept := await _keep(conversation, info.chat, run, last)):
                out += _sse(b"context_kept", _encode(kept))
            out += _event(last, run.run_id)
            if isinstance(last, RunFinished | RunFailed):
                return await exchange.end(out)
            await exchange.write(out)
    raise EngineFailed("the run ended before it was complete")


async def _keep(
    conversation: Conversation | None, binding: ChatBinding | None, run: RunRequest, end: RunFinished
) -> ContextVersion | None:
    if conversation is None or binding is None:
        return None
    asked = Message(role="user", content=as_text(run.inputs[binding.input]))
    reply = Message(role="assistant", content=as_text(end.outputs[binding.output]))
    return await conversation.keep([asked], reply)


def _event(event: RunEvent, run_id: str) -> bytes:
    """The event as a stranger may read it: what went wrong inside is for the log."""
    if isinstance(event, NodeFailed | RunFailed):
        answer = answer_to_failure(event.failure, run_id)
        failure = Failure(event.failure.kind, answer.message, answer.param, answer.retry_after_s)
        event = msgspec.structs.replace(event, failure=failure)
    return _sse(str(type(event).__struct_config__.tag).encode(), to_json(event))


def _sse(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


class GraphObject(Struct, frozen=True):
    """A graph as the API tells of it."""

    name: str
    version: str
    description: str
    model: str | None
    """Its name on /v1/chat/completions; null for a graph that cannot be chatted with."""
    inputs: dict[str, Any]
    """JSON Schema."""
    outputs: dict[str, Any]
    """JSON Schema."""
    models: list[str]
    token_bound: int
    """Most tokens that one run can use: what a run reserves."""
    plan_hash: str
    object: Literal["graph"] = "graph"


class GraphList(Struct, frozen=True):
    data: list[GraphObject]
    object: Literal["list"] = "list"


def describe(info: GraphInfo) -> GraphObject:
    return GraphObject(
        info.name,
        info.version,
        info.description,
        GRAPH_PREFIX + info.name if info.chat is not None else None,
        info.inputs,
        info.outputs,
        info.models,
        info.token_bound,
        info.plan_hash,
    )


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["graphs"])

    @routes.get("/v1/graphs")
    async def list_graphs(request: HTTPRequest) -> Response:
        key = await key_of(gateway, request)
        visible = [info for info in gateway.graphs.values() if may_use(key, GRAPH_PREFIX + info.name)]
        return json_response(GraphList([describe(info) for info in visible]))

    @routes.get("/v1/graphs/{name}")
    async def get_graph(name: str, request: HTTPRequest) -> Response:
        key = await key_of(gateway, request)
        return json_response(describe(known_graph(gateway, key, name)))

    return routes
