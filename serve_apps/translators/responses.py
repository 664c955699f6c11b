"""The bodies of OpenAI's Responses, decoded and checked, and what they mean to a model.

    raw ──► ResponseBody ──► items (as they are kept), messages, Sampling

The items of an input are what a client says, what a model said before, calls of functions, and what came of
them. `responses_replies.py` has the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cluster.messages import Message, Sampling
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import BodyDecoder, check_free_form
from serve_apps.translators.openai import (
    MAX_MESSAGES,
    MAX_TOOLS,
    FunctionName,
    Name,
    Positive,
    StreamOptions,
    check_metadata,
)

LOGPROBS: Literal["message.output_text.logprobs"] = "message.output_text.logprobs"


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing but the declared fields."""


class InputText(_Strict, frozen=True, tag_field="type", tag="input_text"):
    text: str


class OutputText(_Strict, frozen=True, tag_field="type", tag="output_text"):
    """What a model said, as it was told; only the text counts."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(_Strict, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class InputImage(_Strict, frozen=True, tag_field="type", tag="input_image"):
    image_url: str
    """A `data:` URL: nothing is fetched from the network."""
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None


Part = InputText | OutputText | Refusal | InputImage
Status = Literal["in_progress", "completed", "incomplete"]


class InputItem(_Strict, frozen=True):
    """One item of an input. Which fields it has depends on its type."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    id: Name | None = None
    """Of an item that was told by the gateway; it has no effect."""
    status: Status | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    """Of a message."""
    content: str | Annotated[list[Part], Meta(min_length=1, max_length=256)] | None = None
    """Of a message."""
    phase: Literal["commentary", "final_answer"] | None = None
    call_id: Name | None = None
    """Of a call and of its output."""
    name: FunctionName | None = None
    """Of the function that is called."""
    arguments: str | None = None
    """Of the call, as JSON."""
    output: str | Annotated[list[Part], Meta(min_length=1, max_length=256)] | None = None
    """Of the call."""


class FunctionTool(_Strict, frozen=True):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(_Strict, frozen=True):
    type: Literal["function"]
    name: FunctionName


class PlainFormat(_Strict, frozen=True, tag_field="type", tag="text"):
    pass


class JsonFormat(_Strict, frozen=True, tag_field="type", tag="json_object"):
    pass


class SchemaFormat(_Strict, frozen=True, tag_field="type", tag="json_schema"):
    name: FunctionName
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextSettings(_Strict, frozen=True):
    format: PlainFormat | JsonFormat | SchemaFormat | None = None
    verbosity: None = None


class ResponseBody(_Strict, frozen=True, kw_only=True):
    """`POST /v1/responses`."""

    model: Name
    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    """Of this call alone: who continues it does not inherit them."""
    previous_response_id: Name | None = None
    """Continues the conversation that ended with this response."""
    store: bool | None = None
    """Whether the response can be asked for and continued later: yes, unless it says no."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=512)] | None = None
    background: Literal[False] | None = None
    conversation: None = None
    max_tool_calls: None = None
    prompt: None = None
    reasoning: None = None


decode_response = BodyDecoder(ResponseBody).decode


def check_response(body: ResponseBody) -> None:
    """Rules that hold between fields. Raises `BadRequest`."""
    if body.stream_options is not None and not body.stream:
        raise BadRequest("'stream_options' needs 'stream' to be true.", param="stream_options")
    if body.top_logprobs is not None and not body.include:
        raise BadRequest(f"'top_logprobs' needs 'include': [\"{LOGPROBS}\"].", param="top_logprobs")
    if body.tool_choice not in (None, "none", "auto") and not body.tools:
        raise BadRequest("'tool_choice' needs 'tools'.", param="tool_choice")
    check_metadata(body.metadata)
    for index, tool in enumerate(body.tools or ()):
        check_free_form(tool.parameters, f"tools[{index}].parameters")
    if body.text is not None and isinstance(body.text.format, SchemaFormat):
        check_free_form(body.text.format.schema, "text.format.schema")


def input_items(body: ResponseBody) -> list[InputItem]:
    """The input as items. Raises `BadRequest` for one that lacks what its type needs."""
    if isinstance(body.input, str):
        return [InputItem(role="user", content=[InputText(body.input)])]
    for index, item in enumerate(body.input):
        _check_item(item, f"input[{index}]")
    return [_as_parts(item) for item in body.input]


def turns_of(items: Sequence[InputItem], before: Sequence[Message]) -> list[Message]:
    """The items as turns that follow those `before`. Raises `BadRequest` for an output without its call."""
    called = set(_calls(before))
    turns: list[Message] = []
    for index, item in enumerate(items):
        match item.type:
            case "message":
                turns.append(_message(item, f"input[{index}].content"))
            case "function_call":
                called.add(item.call_id or "")
                _add_call(turns, item)
            case "function_call_output":
                if item.call_id not in called:
                    raise BadRequest(
                        f"There is no function call {item.call_id!r} that this is the output of.",
                        param=f"input[{index}].call_id",
                    )
                content = _content(item.output, f"input[{index}].output")
                turns.append(Message("tool", content, tool_call_id=item.call_id))
    return turns


def response_sampling(body: ResponseBody) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        logprobs=bool(body.include),
        top_logprobs=body.top_logprobs,
        tools=[_tool(tool) for tool in body.tools] if body.tools else None,
        tool_choice=_tool_choice(body.tool_choice) if body.tools else None,
        parallel_tool_calls=body.parallel_tool_calls if body.tools else None,
        response_format=_format(body.text),
    )


_NEEDED: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
_OF_ALL = ("type", "id", "status")


def _check_item(item: InputItem, here: str) -> None:
    needed = _NEEDED[item.type]
    for field in needed:
        if getattr(item, field) is None:
            raise BadRequest(
                f"An item of type {item.type!r} needs {field!r}.",
                param=f"{here}.{field}",
                code="missing_field",
            )
    allowed = (*needed, *_OF_ALL, *(("phase",) if item.type == "message" else ()))
    for field in item.__struct_fields__:
        if field not in allowed and getattr(item, field) is not None:
            raise BadRequest(
                f"An item of type {item.type!r} has no {field!r}.",
                param=f"{here}.{field}",
                code="unknown_field",
            )


def _as_parts(item: InputItem) -> InputItem:
    """The item with its text as a part, as it is told later."""
    if not isinstance(item.content, str):
        return item
    part = OutputText(item.content) if item.role == "assistant" else InputText(item.content)
    return msgspec.structs.replace(item, content=[part])


def _message(item: InputItem, here: str) -> Message:
    assert item.role is not None
    return Message(item.role, _content(item.content, here))


def _content(content: str | list[Part] | None, here: str) -> str | list[dict[str, Any]]:
    """One text as it is; several parts as a chat has them."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part, f"{here}[{index}]") for index, part in enumerate(content)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts


def _part(part: Part, here: str) -> dict[str, Any]:
    match part:
        case InputText(text=text) | OutputText(text=text) | Refusal(refusal=text):
            return {"type": "text", "text": text}
    if not part.image_url.startswith("data:image/"):
        raise BadRequest(
            "Images are sent as 'data:image/...' URLs; nothing is fetched from the network.",
            param=f"{here}.image_url",
        )
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}


def _add_call(turns: list[Message], item: InputItem) -> None:
    """Calls belong to the assistant's turn that they follow."""
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    if turns and turns[-1].role == "assistant":
        last = turns.pop()
        turns.append(msgspec.structs.replace(last, tool_calls=[*(last.tool_calls or ()), call]))
    else:
        turns.append(Message("assistant", tool_calls=[call]))


def _calls(turns: Sequence[Message]) -> Iterator[str]:
    for turn in turns:
        for call in turn.tool_calls or ():
            yield call["id"]


def _tool(tool: FunctionTool) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(tool)
    return {"type": "function", "function": {name: plain[name] for name in plain if name != "type"}}


def _tool_choice(choice: str | NamedFunction | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _format(text: TextSettings | None) -> dict[str, Any] | None:
    match text.format if text is not None else None:
        case SchemaFormat() as wanted:
            plain: dict[str, Any] = msgspec.to_builtins(wanted)
            schema = {name: plain[name] for name in plain if name != "type"}
            return {"type": "json_schema", "json_schema": schema}
        case JsonFormat():
            return {"type": "json_object"}
    return None
