"""Our calls in OpenAI's wire format and its replies as our events.

Shared by everything that speaks this dialect towards a model: vLLM's serving layer inside a replica, and
any remote OpenAI-compatible endpoint.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec

from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Batch
from cluster.messages import Delta, Embeddings, Finish, Generate, Usage

_FINISH_REASONS: dict[str, Literal["stop", "length", "tool_calls", "content_filter"]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

# Not str.splitlines, which also splits at characters that JSON may hold as they are, such as U+2028.
_LINE_END = re.compile(r"\r\n|\n|\r")


class _Piece(msgspec.Struct):
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Piece | None = None
    message: _Piece | None = None
    text: str | None = None
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """vLLM's: the stop string that was met, or the id of the token."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: int | str | None = None


class _Reply(msgspec.Struct):
    """A chat or text completion, whole or one chunk of it, or an error."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode


def request_body(call: Generate) -> dict[str, Any]:
    """The body of `/chat/completions` or `/completions`. Only what `Sampling` allows is in it."""
    body: dict[str, Any] = msgspec.to_builtins(call.sampling)
    body["model"] = call.model
    body["max_tokens"] = call.max_tokens
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if call.messages is not None:
        body["messages"] = msgspec.to_builtins(call.messages)
        return body
    body["prompt"] = call.prompt or ""
    # Text completions ask for logprobs by number, chats by a flag and a number.
    top = body.pop("top_logprobs", None)
    if body.pop("logprobs", False):
        body["logprobs"] = top or 0
    return body


def reply_events(reply: bytes | str | dict[str, Any]) -> Batch:
    """The events of a whole reply or of one streamed chunk. `Usage` comes last where the reply has it.

    Raises `ClusterError` when the reply is an error, `EngineFailed` when it is not understood.
    """
    try:
        parsed = msgspec.convert(reply, _Reply) if isinstance(reply, dict) else _decode_reply(reply)
    except msgspec.DecodeError as error:
        raise EngineFailed(f"a reply that is not OpenAI's: {error}") from error
    if parsed.error is not None:
        raise _stated_error(parsed.error)
    events: Batch = []
    for choice in parsed.choices:
        piece = choice.delta or choice.message
        text = choice.text if piece is None else piece.content
        tool_calls = piece.tool_calls if piece is not None else None
        if text or tool_calls or choice.logprobs:
            events.append(Delta(text or "", choice.index, tool_calls or None, choice.logprobs))
    for choice in parsed.choices:
        if choice.finish_reason is not None:
            matched = choice.stop_reason if isinstance(choice.stop_reason, str) else None
            events.append(Finish(_finish(choice.finish_reason), choice.index, matched))
    if parsed.usage is not None:
        events.append(_usage(parsed.usage))
    return events


def reply_embeddings(reply: bytes, *, texts: int, prompt_tokens: int) -> Embeddings:
    """Vectors of an `/embeddings` reply for so many `texts`, in their order, L2-normalised.

    `prompt_tokens` is charged when the reply reports no usage. Raises `EngineFailed` when the reply is not
    understood or a text has no vector.
    """
    try:
        parsed = _decode_vectors(reply)
    except msgspec.DecodeError as error:
        raise EngineFailed(f"a reply that is not OpenAI's: {error}") from error
    ordered = sorted(parsed.data, key=lambda vector: vector.index)
    if [vector.index for vector in ordered] != list(range(texts)):
        raise EngineFailed(f"{len(ordered)} embeddings came for {texts} texts")
    usage = _usage(parsed.usage) if parsed.usage is not None else Usage(prompt_tokens)
    return Embeddings([_normalised(vector.embedding) for vector in ordered], usage)


def reply_error(status: int, body: bytes, retry_after_s: float | None = None) -> ClusterError:
    """The error that an HTTP reply of `status` 300 and above stands for.

    Only what concerns the call itself is passed on: a provider that refuses our key may quote it.
    """
    known = error_of(status, f"the provider answered HTTP {status}", retry_after_s=retry_after_s)
    if not isinstance(known, InvalidCall):
        return known
    try:
        error = _decode_reply(body).error
    except msgspec.DecodeError:
        return known
    return InvalidCall(error.message, param=error.param) if error is not None else known


def error_of(
    status: int | str | None, message: str, param: str | None = None, *, retry_after_s: float | None = None
) -> ClusterError:
    """Whose fault that status is. A refused key or an unknown model upstream is ours, not the caller's."""
    if status in (400, 413, 422):
        return InvalidCall(message, param=param)
    if status == 429:
        return Overloaded(message, retry_after_s=retry_after_s or 1.0)
    if status == 503:
        return ModelUnavailable(message, retry_after_s=retry_after_s or 1.0)
    return EngineFailed(message)


def sse_payloads(text: str) -> list[str]:
    """The data of complete server-sent events, without the closing `[DONE]`."""
    payloads = [line[5:].strip() for line in _LINE_END.split(text) if line.startswith("data:")]
    return [payload for payload in payloads if payload != "[DONE]"]


def _stated_error(error: _Error) -> ClusterError:
    """The error that a reply states. As in `reply_error`, only what concerns the call is passed on."""
    known = error_of(error.code, "the engine answered with an error", error.param)
    return InvalidCall(error.message, param=error.param) if isinstance(known, InvalidCall) else known


def _normalised(vector: list[float]) -> list[float]:
    norm = math.hypot(*vector)
    return [value / norm for value in vector] if norm else vector


def _finish(reason: str) -> Literal["stop", "length", "tool_calls", "content_filter"]:
    try:
        return _FINISH_REASONS[reason]
    except KeyError:
        raise EngineFailed(f"the engine ended a choice with {reason!r}") from None


def _usage(usage: _Usage) -> Usage:
    details = usage.prompt_tokens_details
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens or 0,
        (details.cached_tokens or 0) if details is not None else 0,
    )
