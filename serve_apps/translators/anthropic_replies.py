"""What a model said, in Anthropic's words: whole answers, and the events of a stream.

    [Delta "Hel"]   message_start, content_block_start, content_block_delta
    [Delta "lo"]    content_block_delta
    [Finish]
    [Usage]         content_block_stop, message_delta, message_stop

Only the first choice is told: there is no other in this dialect.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from cluster.errors import EngineFailed
from cluster.interface import Batch
from cluster.messages import Delta, Finish, Usage
from serve_apps.translators.openai_replies import ContextVersion, whole_tool_calls

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

_STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_TEXT = -1
"""Stands for the text among the numbers of tool calls."""

_encode = msgspec.json.Encoder().encode
_decode_input = msgspec.json.Decoder(dict[str, Any]).decode


class TextContent(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ToolUse(Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Struct, frozen=True):
    """Tokens. All of the prompt are those of `input_tokens` and of the cache together."""

    input_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    output_tokens: int


class AnthropicMessage(Struct, frozen=True, tag_field="type", tag="message"):
    id: str
    model: str
    content: list[TextContent | ToolUse]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    role: Literal["assistant"] = "assistant"


class TokenCount(Struct, frozen=True):
    input_tokens: int


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    message: AnthropicMessage


class BlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    index: int
    content_block: TextContent | ToolUse


class TextDelta(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str


class InputDelta(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    partial_json: str


class BlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDelta | InputDelta


class BlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    index: int


class Stopped(Struct, frozen=True):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    delta: Stopped
    usage: MessageUsage


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    pass


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop


class MessageLabel(Struct, frozen=True):
    """What is known of an answer before it is there."""

    id: str
    model: str


class MessageStream:
    """Turns batches into the events of one streamed message."""

    def __init__(self, label: MessageLabel) -> None:
        self._label = label
        self._begun = False
        self._blocks = 0
        self._open: int | None = None
        """The tool call whose block is open, or `_TEXT`."""
        self._called: set[int] = set()
        """Tool calls that have or had a block."""
        self._finish: Finish | None = None

    def feed(self, batch: Batch) -> bytes:
        """Raises `EngineFailed` for tool calls that cannot be told one after the other."""
        out: list[Event] = []
        if not self._begun:
            self._begun = True
            out.append(MessageStart(_message(self._label, [], None, None, Usage())))
        for event in batch:
            if isinstance(event, Usage) or event.index:
                continue
            if isinstance(event, Finish):
                self._finish = event
                continue
            if event.text:
                self._say(event.text, out)
            for position, call in enumerate(event.tool_calls or ()):
                self._call(call.get("index", position), call, out)
        return b"".join(map(_sse, out))

    def end(self, usage: Usage, _: ContextVersion | None) -> bytes:
        out: list[Event] = []
        self._close(out)
        reason = _stop_reason(self._finish, bool(self._called))
        matched = self._finish.matched if self._finish is not None else None
        out += [MessageDelta(Stopped(reason, matched), _usage(usage)), MessageStop()]
        return b"".join(map(_sse, out))

    def _say(self, text: str, out: list[Event]) -> None:
        """Texts that leave together are one event."""
        if self._open != _TEXT:
            self._start(_TEXT, TextContent(""), out)
        last = out[-1] if out else None
        if isinstance(last, BlockDelta) and isinstance(last.delta, TextDelta):
            out[-1] = BlockDelta(last.index, TextDelta(last.delta.text + text))
        else:
            out.append(BlockDelta(self._blocks - 1, TextDelta(text)))

    def _call(self, number: int, call: dict[str, Any], out: list[Event]) -> None:
        function = call.get("function") or {}
        if self._open != number:
            if number in self._called:
                raise EngineFailed("the model's tool calls are mixed up with each other")
            self._called.add(number)
            made = ToolUse(call.get("id") or _tool_id(self._label, number), function.get("name") or "", {})
            self._start(number, made, out)
        if arguments := function.get("arguments"):
            out.append(BlockDelta(self._blocks - 1, InputDelta(arguments)))

    def _start(self, what: int, block: TextContent | ToolUse, out: list[Event]) -> None:
        self._close(out)
        self._open = what
        out.append(BlockStart(self._blocks, block))
        self._blocks += 1

    def _close(self, out: list[Event]) -> None:
        if self._open is not None:
            out.append(BlockStop(self._blocks - 1))
            self._open = None


def message_answer(label: MessageLabel, events: Batch) -> bytes:
    """The whole message. Raises `EngineFailed` where the model calls a tool in no JSON."""
    text, deltas, finish, usage = "", [], None, Usage()
    for event in events:
        if isinstance(event, Usage):
            usage = event
        elif event.index:
            continue
        elif isinstance(event, Finish):
            finish = event
        else:
            text += event.text
            deltas += _numbered(event)
    content: list[TextContent | ToolUse] = [TextContent(text)] if text else []
    cut = finish is not None and finish.reason == "length"
    for number, call in enumerate(whole_tool_calls(deltas)):
        arguments = call["function"]["arguments"] or "{}"
        try:
            made = ToolUse(
                call["id"] or _tool_id(label, number), call["function"]["name"], _decode_input(arguments)
            )
        except msgspec.DecodeError as error:
            if cut:  # half a call is none
                break
            raise EngineFailed("the arguments of a tool call are no JSON object") from error
        content.append(made)
    called = any(isinstance(block, ToolUse) for block in content)
    matched = finish.matched if finish is not None else None
    return _encode(_message(label, content, _stop_reason(finish, called), matched, usage))


def _numbered(delta: Delta) -> list[dict[str, Any]]:
    return [
        call if "index" in call else {"index": position, **call}
        for position, call in enumerate(delta.tool_calls or ())
    ]


def _stop_reason(finish: Finish | None, called: bool) -> StopReason:
    """vLLM ends forced tool calls with `stop`."""
    if finish is None or finish.reason == "stop":
        if called:
            return "tool_use"
        return "end_turn" if finish is None or finish.matched is None else "stop_sequence"
    return _STOP_REASONS[finish.reason]


def _tool_id(label: MessageLabel, number: int) -> str:
    return f"toolu_{label.id.removeprefix('msg_')}_{number}"


def _message(
    label: MessageLabel,
    content: list[TextContent | ToolUse],
    reason: StopReason | None,
    matched: str | None,
    usage: Usage,
) -> AnthropicMessage:
    return AnthropicMessage(label.id, label.model, content, reason, matched, _usage(usage))


def _usage(usage: Usage) -> MessageUsage:
    return MessageUsage(
        usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens, 0, usage.completion_tokens
    )


def _sse(event: Event) -> bytes:
    tag = event.__struct_config__.tag
    return b"event: %b\ndata: %b\n\n" % (str(tag).encode(), _encode(event))
