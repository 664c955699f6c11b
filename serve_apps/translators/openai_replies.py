"""What a model said, in OpenAI's words: whole answers, chunks of a stream, and the turn to remember.

batches ──► ChatStream | CompletionStream ──► server-sent events
events  ──► chat_answer | completion_answer | embedding_answer ──► JSON
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cluster.interface import Batch
from cluster.messages import Delta, Embeddings, Finish, Message, Usage

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class CachedTokens(Struct, frozen=True):
    cached_tokens: int


class TokenUsage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class EmbeddingUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class ContextVersion(Struct, frozen=True):
    """Where a conversation kept under a `contextId` stands after this answer."""

    id: str
    version: int


class AssistantMessage(Struct, frozen=True):
    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    index: int
    message: AssistantMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(Struct, frozen=True):
    id: str
    model: str
    created: int
    choices: list[ChatChoice]
    usage: TokenUsage
    object: Literal["chat.completion"] = "chat.completion"


class ChunkDelta(Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChunkChoice(Struct, frozen=True):
    index: int
    delta: ChunkDelta
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class ChatChunk(Struct, frozen=True):
    id: str
    model: str
    created: int
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: TokenUsage | UnsetType = UNSET
    context: ContextVersion | UnsetType = UNSET
    """In the chunk with the finish reason, of calls that named a `contextId`."""


class CompletionChoice(Struct, frozen=True):
    index: int
    text: str
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class Completion(Struct, frozen=True):
    """A whole completion, or one chunk of a streamed one."""

    id: str
    model: str
    created: int
    choices: list[CompletionChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: TokenUsage | UnsetType = UNSET


class Embedding(Struct, frozen=True):
    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingList(Struct, frozen=True):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class Label(Struct, frozen=True):
    """What every part of one answer repeats."""

    id: str
    model: str
    created: int
    """Unix seconds."""


class Piece:
    """What is known of one choice: of a batch, or of the whole answer."""

    __slots__ = ("finish", "logprobs", "text", "tool_calls")

    def __init__(self) -> None:
        self.text = ""
        self.logprobs: dict[str, Any] | None = None
        self.tool_calls: list[dict[str, Any]] = []
        """Deltas, each with the `index` of its call."""
        self.finish: str | None = None


def gather(events: Iterable[Delta | Finish | Usage]) -> tuple[dict[int, Piece], Usage | None]:
    """The events merged by choice, in order of first appearance, and the usage if it is among them."""
    pieces: dict[int, Piece] = {}
    usage: Usage | None = None
    for event in events:
        if isinstance(event, Usage):
            usage = event
            continue
        piece = pieces.get(event.index)
        if piece is None:
            piece = pieces[event.index] = Piece()
        if isinstance(event, Finish):
            piece.finish = event.reason
            continue
        piece.text += event.text
        if event.logprobs is not None:
            if piece.logprobs is None:
                piece.logprobs = {}
            _extend(piece.logprobs, event.logprobs)
        for position, call in enumerate(event.tool_calls or ()):
            piece.tool_calls.append(call if "index" in call else {"index": position, **call})
    return pieces, usage


def whole_tool_calls(deltas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tool calls that a sequence of OpenAI tool-call deltas spells out."""
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        call = calls.setdefault(
            delta["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = delta.get("id") or call["id"]
        function = delta.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


def assistant_turn(events: Iterable[Delta | Finish | Usage]) -> Message:
    """The reply of the first choice, as the turn that a context remembers."""
    piece = gather(events)[0].get(0) or Piece()
    calls = whole_tool_calls(piece.tool_calls)
    text = piece.text or (None if calls else "")
    return Message(role="assistant", content=text, tool_calls=calls or None)


class ChatStream:
    """Turns batches into chunks of one streamed chat. One chunk for each choice in a batch."""

    def __init__(self, label: Label, *, include_usage: bool, hold_finish: bool) -> None:
        self._label = label
        self._include_usage = include_usage
        self._hold_finish = hold_finish
        """Keeps the finish reason back until `end`, whose chunk also says the context's version."""
        self._begun: set[int] = set()
        self._held: list[tuple[int, str]] = []

    def feed(self, batch: Batch) -> bytes:
        pieces, _ = gather(batch)
        out = b""
        for index, piece in pieces.items():
            if piece.text or piece.tool_calls or piece.logprobs or index not in self._begun:
                out += self._content(index, piece)
            if piece.finish is not None and self._hold_finish:
                self._held.append((index, piece.finish))
            elif piece.finish is not None:
                out += self._event([ChunkChoice(index, ChunkDelta(), None, piece.finish)])
        return out

    def end(self, usage: Usage, context: ContextVersion | None) -> bytes:
        out = b"".join(
            self._event([ChunkChoice(index, ChunkDelta(), None, finish)], context=context or UNSET)
            for index, finish in self._held
        )
        if self._include_usage:
            out += self._event([], usage=_usage(usage))
        return out + DONE

    def _content(self, index: int, piece: Piece) -> bytes:
        first = index not in self._begun
        self._begun.add(index)
        content = piece.text if piece.text or not piece.tool_calls else None
        delta = ChunkDelta("assistant" if first else None, content, piece.tool_calls or None)
        return self._event([ChunkChoice(index, delta, piece.logprobs)])

    def _event(
        self,
        choices: list[ChunkChoice],
        usage: TokenUsage | UnsetType = UNSET,
        context: ContextVersion | UnsetType = UNSET,
    ) -> bytes:
        label = self._label
        chunk = ChatChunk(label.id, label.model, label.created, choices, usage=usage, context=context)
        return b"data: %b\n\n" % _encode(chunk)


class CompletionStream:
    """Turns batches into chunks of one streamed completion."""

    def __init__(self, label: Label, *, include_usage: bool) -> None:
        self._label = label
        self._include_usage = include_usage

    def feed(self, batch: Batch) -> bytes:
        pieces, _ = gather(batch)
        return b"".join(
            self._event([CompletionChoice(index, piece.text, piece.logprobs, piece.finish)])
            for index, piece in pieces.items()
        )

    def end(self, usage: Usage, _: ContextVersion | None) -> bytes:
        return (self._event([], _usage(usage)) if self._include_usage else b"") + DONE

    def _event(self, choices: list[CompletionChoice], usage: TokenUsage | UnsetType = UNSET) -> bytes:
        label = self._label
        return b"data: %b\n\n" % _encode(
            Completion(label.id, label.model, label.created, choices, usage=usage)
        )


def chat_answer(label: Label, events: Batch) -> bytes:
    pieces, usage = gather(events)
    choices = []
    for index in sorted(pieces):
        piece = pieces[index]
        calls = whole_tool_calls(piece.tool_calls)
        message = AssistantMessage(piece.text or (None if calls else ""), tool_calls=calls or UNSET)
        choices.append(ChatChoice(index, message, piece.logprobs, piece.finish or "stop"))
    return _encode(ChatCompletion(label.id, label.model, label.created, choices, _usage(usage or Usage())))


def completion_answer(label: Label, events: Batch) -> bytes:
    pieces, usage = gather(events)
    choices = [
        CompletionChoice(index, pieces[index].text, pieces[index].logprobs, pieces[index].finish or "stop")
        for index in sorted(pieces)
    ]
    return _encode(Completion(label.id, label.model, label.created, choices, usage=_usage(usage or Usage())))


def embedding_answer(model: str, embeddings: Embeddings, *, base64: bool) -> bytes:
    data = [
        Embedding(index, _base64(vector) if base64 else vector)
        for index, vector in enumerate(embeddings.vectors)
    ]
    tokens = embeddings.usage.prompt_tokens
    return _encode(EmbeddingList(data, model, EmbeddingUsage(tokens, tokens)))


def _base64(vector: Sequence[float]) -> str:
    """The vector as base64 of little-endian 32-bit floats, as OpenAI's SDK reads it."""
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return b64encode(packed.tobytes()).decode()


def _extend(known: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds the logprobs object of the tokens that follow: its lists to the end of ours."""
    for name, value in more.items():
        if isinstance(value, list):
            known[name] = known.get(name) or []
            known[name] += value
        else:
            known[name] = value


def _usage(usage: Usage) -> TokenUsage:
    return TokenUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        CachedTokens(usage.cached_tokens),
    )
