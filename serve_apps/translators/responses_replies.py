"""What a model said, in the words of OpenAI's Responses: one object, or a stream of events.

    events ──► Reply ──► output items ──► ResponseObject
    batches ──► ResponseStream ──► response.created … response.output_text.delta … response.completed

All items of a reply stay open until it ends: a model may speak of several calls in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Struct

from cluster.interface import Batch
from cluster.messages import Delta, Finish, Message, Usage
from serve_apps.gateway.errors import GatewayError
from serve_apps.translators.openai_replies import ContextVersion
from serve_apps.translators.responses import InputItem, ResponseBody

_encode = msgspec.json.Encoder().encode

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputTokens(Struct, frozen=True):
    cached_tokens: int
    """Those that were in the engine's cache."""
    cache_write_tokens: int = 0


class ReasoningTokens(Struct, frozen=True):
    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseFault(Struct, frozen=True):
    code: str
    message: str


class Incomplete(Struct, frozen=True):
    reason: Literal["max_output_tokens", "content_filter"]


class SpokenText(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[dict[str, Any]] = []


class SpokenMessage(Struct, frozen=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    content: list[SpokenText]
    role: Literal["assistant"] = "assistant"


class SpokenCall(Struct, frozen=True, tag_field="type", tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


OutputItem = SpokenMessage | SpokenCall


class ResponseObject(Struct, frozen=True, kw_only=True):
    """A response, as it stands."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    """Unix seconds."""
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFault | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    store: bool
    temperature: float | None = None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    background: Literal[False] = False


class ResponseDeleted(Struct, frozen=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItems(Struct, frozen=True):
    """Items of the input of a response."""

    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool
    object: Literal["list"] = "list"


@dataclass
class _Said:
    """An item of the reply, so far."""

    id: str
    call: bool
    text: str = ""
    """Or the arguments of the call."""
    call_id: str = ""
    name: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def item(self, status: ItemStatus) -> OutputItem:
        if self.call:
            return SpokenCall(self.id, status, self.call_id, self.name, self.text)
        content = [] if status == "in_progress" else [self.part()]
        return SpokenMessage(self.id, status, content)

    def part(self) -> SpokenText:
        return SpokenText(self.text, logprobs=self.logprobs)


@dataclass(frozen=True)
class _Piece:
    """What a delta adds to an item."""

    said: _Said
    index: int
    """Of the item in the output."""
    new: bool
    text: str
    logprobs: list[dict[str, Any]]


class Reply:
    """The items of a reply, put together from its events."""

    def __init__(self, response_id: str) -> None:
        self._id = response_id.removeprefix("resp_")
        self._said: list[_Said] = []
        self._message: int | None = None
        self._calls: dict[int, int] = {}
        """Where the call of an index is among the items."""
        self.finish = "stop"

    def add(self, events: Iterable[Delta | Finish | Usage]) -> list[_Piece]:
        """What the events say that was not said before."""
        pieces: list[_Piece] = []
        for event in events:
            if isinstance(event, Finish):
                self.finish = event.reason
            elif isinstance(event, Delta):
                logprobs = (event.logprobs or {}).get("content") or []
                if event.text or logprobs:
                    pieces.append(self._add_text(event.text, logprobs))
                for position, call in enumerate(event.tool_calls or ()):
                    pieces.append(self._add_call(call.get("index", position), call))
        return pieces

    def close(self) -> list[_Piece]:
        """The message that a reply has which said nothing."""
        return [] if self._said else [self._add_text("", [])]

    @property
    def said(self) -> list[_Said]:
        return self._said

    def items(self) -> list[OutputItem]:
        cut = self.finish in ("length", "content_filter")
        return [said.item("incomplete" if cut else "completed") for said in self._said]

    def turn(self) -> Message:
        """The reply as the turn that a conversation goes on from."""
        text = "".join(said.text for said in self._said if not said.call)
        calls = [
            {"id": said.call_id, "type": "function", "function": {"name": said.name, "arguments": said.text}}
            for said in self._said
            if said.call
        ]
        return Message("assistant", text or (None if calls else ""), tool_calls=calls or None)

    def _add_text(self, text: str, logprobs: list[dict[str, Any]]) -> _Piece:
        new = self._message is None
        if self._message is None:
            self._message = len(self._said)
            self._said.append(_Said(f"msg_{self._id}", call=False))
        said = self._said[self._message]
        said.text += text
        said.logprobs += logprobs
        return _Piece(said, self._message, new, text, logprobs)

    def _add_call(self, index: int, delta: Mapping[str, Any]) -> _Piece:
        at, new = self._calls.get(index), False
        if at is None:
            at, new = len(self._said), True
            self._calls[index] = at
            self._said.append(_Said(f"fc_{self._id}_{at}", call=True, call_id=f"call_{self._id}_{at}"))
        said = self._said[at]
        function = delta.get("function") or {}
        said.call_id = delta.get("id") or said.call_id
        said.name += function.get("name") or ""
        arguments = function.get("arguments") or ""
        said.text += arguments
        return _Piece(said, at, new, arguments, [])


def whole(response_id: str, events: Batch) -> tuple[Reply, Usage]:
    """A reply of which there is nothing more to come."""
    reply = Reply(response_id)
    reply.add(events)
    reply.close()
    return reply, next((event for event in events if isinstance(event, Usage)), Usage())


class Teller:
    """Tells of one response."""

    def __init__(self, response_id: str, created_at: int, body: ResponseBody) -> None:
        self.id = response_id
        self._created_at = created_at
        self._body = body

    def begun(self) -> ResponseObject:
        return self._told("in_progress", [])

    def ended(self, reply: Reply, usage: Usage) -> ResponseObject:
        cut = _INCOMPLETE.get(reply.finish)
        return self._told(
            "incomplete" if cut else "completed", reply.items(), incomplete_details=cut, usage=_usage(usage)
        )

    def failed(self, reply: Reply, error: GatewayError) -> ResponseObject:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        items = [said.item("incomplete") for said in reply.said]
        return self._told("failed", items, error=ResponseFault(code, error.message))

    def _told(
        self,
        status: Literal["in_progress", "completed", "incomplete", "failed"],
        output: list[OutputItem],
        **more: Any,
    ) -> ResponseObject:
        body = self._body
        format_ = body.text.format if body.text is not None else None
        return ResponseObject(
            id=self.id,
            created_at=self._created_at,
            status=status,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=body.model,
            output=output,
            parallel_tool_calls=body.parallel_tool_calls is not False,
            previous_response_id=body.previous_response_id,
            store=body.store is not False,
            temperature=body.temperature,
            text={"format": msgspec.to_builtins(format_) if format_ else {"type": "text"}},
            tool_choice=msgspec.to_builtins(body.tool_choice or "auto"),
            tools=[_TOOL | msgspec.to_builtins(tool) for tool in body.tools or ()],
            top_logprobs=body.top_logprobs,
            top_p=body.top_p,
            user=body.user,
            **more,
        )


class ResponseStream:
    """Turns batches into the events of one streamed response. `keep` is told what to keep of it before the
    last event."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self.reply = Reply(teller.id)
        self._number = 0
        self._begun = False

    def feed(self, batch: Batch) -> bytes:
        return self._begin() + b"".join(map(self._piece, self.reply.add(batch)))

    def end(self, usage: Usage, _: ContextVersion | None) -> bytes:
        out = self._begin() + b"".join(map(self._piece, self.reply.close()))
        for index, (said, item) in enumerate(zip(self.reply.said, self.reply.items(), strict=True)):
            out += self._done(index, said) + self._event(
                "response.output_item.done", output_index=index, item=item
            )
        response = self._teller.ended(self.reply, usage)
        return out + self._event(f"response.{response.status}", response=response)

    def failed(self, error: GatewayError) -> bytes:
        """The last event of a response that broke off."""
        return self._event("response.failed", response=self._teller.failed(self.reply, error))

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        begun = self._teller.begun()
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def _piece(self, piece: _Piece) -> bytes:
        said, index = piece.said, piece.index
        out = self._open(said, index) if piece.new else b""
        if not piece.text and not piece.logprobs:
            return out
        if said.call:
            return out + self._event(
                "response.function_call_arguments.delta",
                item_id=said.id,
                output_index=index,
                delta=piece.text,
            )
        return out + self._event(
            "response.output_text.delta",
            item_id=said.id,
            output_index=index,
            content_index=0,
            delta=piece.text,
            logprobs=_without_bytes(piece.logprobs),
        )

    def _open(self, said: _Said, index: int) -> bytes:
        item = said.item("in_progress")
        if isinstance(item, SpokenCall):
            item = msgspec.structs.replace(item, arguments="")
        out = self._event("response.output_item.added", output_index=index, item=item)
        if said.call:
            return out
        return out + self._event(
            "response.content_part.added",
            item_id=said.id,
            output_index=index,
            content_index=0,
            part=SpokenText(""),
        )

    def _done(self, index: int, said: _Said) -> bytes:
        if said.call:
            return self._event(
                "response.function_call_arguments.done",
                item_id=said.id,
                output_index=index,
                arguments=said.text,
            )
        where = {"item_id": said.id, "output_index": index, "content_index": 0}
        logprobs = _without_bytes(said.logprobs)
        return self._event(
            "response.output_text.done", **where, text=said.text, logprobs=logprobs
        ) + self._event("response.content_part.done", **where, part=said.part())

    def _event(self, kind: str, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(told))


def told_items(items: Iterable[InputItem], response_id: str) -> list[dict[str, Any]]:
    """The items of an input as they are told when they are asked for: each has an id."""
    own = response_id.removeprefix("resp_")
    told = []
    for index, item in enumerate(items):
        plain = {"type": item.type, **msgspec.to_builtins(item)}
        plain["id"] = f"{_PREFIX[item.type]}_{own}_in{index}"
        plain["status"] = "completed"
        for part in plain.get("content", ()):
            if part["type"] == "input_image":
                part.setdefault("detail", "auto")
            if part["type"] == "output_text":
                part.setdefault("annotations", [])
        told.append(plain)
    return told


_TOOL = {"type": "function", "description": None, "parameters": None, "strict": None}
_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_INCOMPLETE = {"length": Incomplete("max_output_tokens"), "content_filter": Incomplete("content_filter")}


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputTokens(usage.cached_tokens),
        usage.completion_tokens,
        ReasoningTokens(),
        usage.total_tokens,
    )


def _without_bytes(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As events have them."""
    return [
        {
            "token": each["token"],
            "logprob": each["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in each.get("top_logprobs") or ()
            ],
        }
        for each in logprobs
    ]
