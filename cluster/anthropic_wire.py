"""Our calls in Anthropic's wire format, and its whole replies as our events.

    [system, user, assistant + tool_calls, tool, tool]
        ─► system, [user, assistant [text, tool_use], user [tool_result, tool_result]]

Results of tools go back in one turn of the user, as this API wants them. `anthropic_stream.py` has streams;
`serve_apps.translators.anthropic` is the other side of this dialect.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Batch
from cluster.messages import Delta, Finish, Generate, Message, Sampling, Usage

REFUSED: Final = (
    *("n", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "min_tokens", "ignore_eos"),
)
"""Of `Sampling`, what this API has no word for. A call that asks for it is refused."""

_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "min_p": (0.0,),
    "min_tokens": (0,),
    "logit_bias": ({},),
}
"""Values that ask for nothing."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_DEFAULTS: Final = Sampling()


class Block(msgspec.Struct):
    """Of an answer. Kinds that we did not ask for, as thinking, say nothing to us."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}


class Counts(msgspec.Struct):
    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None


class StatedError(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Reply(msgspec.Struct):
    type: str
    content: list[Block] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Counts | None = None
    error: StatedError | None = None


class _ErrorReply(msgspec.Struct):
    error: StatedError


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_error = msgspec.json.Decoder(_ErrorReply).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def request_body(call: Generate) -> dict[str, Any]:
    """The body of `POST /messages`. Raises `InvalidCall` for what this API cannot say."""
    if call.messages is None:
        raise InvalidCall(
            f"model {call.model} answers chats only: send 'messages' to it, not a 'prompt'", param="prompt"
        )
    _check(call)
    system, turns = _turns(call.messages)
    body: dict[str, Any] = {"max_tokens": call.max_tokens, "messages": turns}
    if system:
        body["system"] = system
    if call.stream:
        body["stream"] = True
    sampling = call.sampling
    for ours, theirs in (
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("stop", "stop_sequences"),
    ):
        if (value := getattr(sampling, ours)) is not None:
            body[theirs] = value
    if sampling.tools:
        body["tools"] = [_tool(tool) for tool in sampling.tools]
        if (choice := _choice(sampling)) is not None:
            body["tool_choice"] = choice
    if (held := _format(call)) is not None:
        body["output_config"] = {"format": held}
    return body


def reply_events(reply: bytes) -> Batch:
    """The events of a whole reply; `Usage` comes last where the reply has it.

    Raises `ClusterError` when the reply is an error, `EngineFailed` when it is not understood.
    """
    try:
        parsed = _decode_reply(reply)
    except msgspec.DecodeError as error:
        raise EngineFailed(f"a reply that is not Anthropic's: {error}") from error
    if parsed.error is not None:
        raise error_of(parsed.error)
    if parsed.type != "message":
        raise EngineFailed(f"a reply that is not Anthropic's: it is a {parsed.type!r}")
    events: Batch = []
    calls: list[dict[str, Any]] = []
    for block in parsed.content:
        if block.type == "text" and block.text:
            events.append(Delta(block.text))
        elif block.type == "tool_use":
            arguments = msgspec.json.encode(block.input).decode()
            calls.append({"index": len(calls), **called(block, arguments)})
    if calls:
        events.append(Delta(tool_calls=calls))
    if parsed.stop_reason is not None:
        events.append(finish_of(parsed.stop_reason, parsed.stop_sequence))
    if parsed.usage is not None:
        events.append(usage_of(parsed.usage))
    return events


def called(block: Block, arguments: str) -> dict[str, Any]:
    """A `tool_use` block as OpenAI has the call of a tool."""
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def finish_of(reason: str, matched: str | None) -> Finish:
    """Raises `EngineFailed` for a reason that nobody knows."""
    if reason not in _FINISH:
        raise EngineFailed(f"the provider ended its answer with {reason!r}")
    return Finish(_FINISH[reason], matched=matched)


def usage_of(counts: Counts) -> Usage:
    """Anthropic counts tokens of the cache apart from others of the prompt; in ours they are part of it."""
    read = counts.cache_read_input_tokens or 0
    prompt = (counts.input_tokens or 0) + read + (counts.cache_creation_input_tokens or 0)
    return Usage(prompt, counts.output_tokens or 0, read)


def reply_error(status: int, body: bytes, retry_after_s: float | None = None) -> ClusterError:
    """The error that an HTTP reply of `status` 300 and above stands for.

    Only what concerns the call itself is passed on: a provider that refuses our key may quote it.
    """
    message = f"the provider answered HTTP {status}"
    if status in (400, 413):
        try:
            stated = _decode_error(body).error
        except msgspec.DecodeError:
            return InvalidCall(message)
        return InvalidCall(stated.message or message)
    if status == 429:
        return Overloaded(message, retry_after_s=retry_after_s or 1.0)
    if status in (503, 529):  # 529: the API itself is full, whoever asks
        return ModelUnavailable(message, retry_after_s=retry_after_s or 1.0)
    return EngineFailed(message)


def error_of(stated: StatedError) -> ClusterError:
    """The error that a stream states after it has begun."""
    message = "the provider broke its answer off with an error"
    match stated.type:
        case "invalid_request_error" | "request_too_large":
            return InvalidCall(stated.message)
        case "rate_limit_error":
            return Overloaded(message, retry_after_s=1.0)
        case "overloaded_error":
            return ModelUnavailable(message, retry_after_s=1.0)
    return EngineFailed(message)


def _check(call: Generate) -> None:
    for name in REFUSED:
        value = getattr(call.sampling, name)
        if value not in (getattr(_DEFAULTS, name), None, *_HARMLESS.get(name, ())):
            raise InvalidCall(f"model {call.model} does not know {name!r}: leave it out", param=name)


def _turns(messages: list[Message]) -> tuple[str, list[dict[str, Any]]]:
    """The system prompt, and turns in which neighbours of one role are one."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        here = f"messages[{index}]"
        if message.role in ("system", "developer"):
            system += [part["text"] for part in _blocks(message, here) if part["type"] == "text"]
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _said(message, here)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return "\n\n".join(system), turns


def _said(message: Message, here: str) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.tool_call_id or ""}
        if blocks := _blocks(message, here):
            result["content"] = blocks
        return [result]
    blocks = _blocks(message, here)
    for index, call in enumerate(message.tool_calls or ()):
        blocks.append(_tool_use(call, f"{here}.tool_calls[{index}].function.arguments"))
    return blocks


def _blocks(message: Message, here: str) -> list[dict[str, Any]]:
    """Its text and images. A text of nothing is told only where a person says nothing else."""
    content = message.content
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content or message.role == "user" else []
    return [_block(part, f"{here}.content[{index}]") for index, part in enumerate(content or ())]


def _block(part: dict[str, Any], here: str) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:"):
            media_type, _, data = url.removeprefix("data:").partition(";base64,")
            source = {"type": "base64", "media_type": media_type, "data": data}
            return {"type": "image", "source": source}
        case {"type": "image_url"}:
            raise InvalidCall(
                "images are sent as 'data:image/...;base64,' URLs", param=f"{here}.image_url.url"
            )
    raise InvalidCall(f"this model reads no {part.get('type')!r} parts, only text and images", param=here)


def _tool_use(call: dict[str, Any], here: str) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = _decode_object(function.get("arguments") or "{}")
    except msgspec.DecodeError as error:
        raise InvalidCall("the arguments of a call are no JSON object", param=here) from error
    return {
        "type": "tool_use",
        "id": call.get("id", ""),
        "name": function.get("name", ""),
        "input": arguments,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function") or {}
    told = {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function.get("name", ""), "input_schema": schema, **told}


def _choice(sampling: Sampling) -> dict[str, Any] | None:
    choice = sampling.tool_choice
    alone = sampling.parallel_tool_calls is False
    told: dict[str, Any] | None = {"type": "auto"} if choice == "auto" or alone else None
    if choice == "none":
        return {"type": "none"}
    if choice == "required":
        told = {"type": "any"}
    elif isinstance(choice, dict):
        told = {"type": "tool", "name": (choice.get("function") or {}).get("name", "")}
    return {**told, "disable_parallel_tool_use": True} if told is not None and alone else told


def _format(call: Generate) -> dict[str, Any] | None:
    wanted = call.sampling.response_format
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}
    raise InvalidCall(
        f"model {call.model} answers in JSON only to a schema: 'response_format' of the type 'json_schema'",
        param="response_format",
    )
