"""Anthropic's request bodies, decoded and checked, and what they mean to a model.

    raw ──► MessagesBody ──► messages, Sampling          CountBody ──► messages, Sampling

    user [tool_result, tool_result, text]  ──►  tool, tool, user       one message each
    assistant [text, tool_use]             ──►  assistant with tool_calls

A body says only what is declared here: an unknown field, a wrong type or a value out of range is a
`BadRequest` that names it. `anthropic_replies.py` has the way back.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cluster.messages import Message, Sampling
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import BodyDecoder, check_free_form
from serve_apps.translators.openai import ContextId

MAX_MESSAGES = 4096
MAX_BLOCKS = 1024
MAX_TOOLS = 128

Name = Annotated[str, Meta(min_length=1, max_length=256)]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]
StopSequence = Annotated[str, Meta(min_length=1, max_length=256)]


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing but the declared fields."""


class CacheControl(_Strict, frozen=True, tag_field="type", tag="ephemeral"):
    """Has no effect: what prompts share is found in the engines' caches by itself."""

    ttl: Literal["5m", "1h"] | None = None


class TextBlock(_Strict, frozen=True, tag_field="type", tag="text"):
    text: str
    cache_control: CacheControl | None = None
    citations: None = None
    """As answers have it."""


class Base64Source(_Strict, frozen=True, tag_field="type", tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, Meta(min_length=1)]


class UrlSource(_Strict, frozen=True, tag_field="type", tag="url"):
    url: str
    """A `data:` URL: the engine fetches nothing from the network on a client's word."""


class ImageBlock(_Strict, frozen=True, tag_field="type", tag="image"):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class DirectCaller(_Strict, frozen=True, tag_field="type", tag="direct"):
    pass


class ToolUseBlock(_Strict, frozen=True, tag_field="type", tag="tool_use"):
    id: Name
    name: ToolName
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None


class ToolResultBlock(_Strict, frozen=True, tag_field="type", tag="tool_result"):
    tool_use_id: Name
    content: str | Annotated[list[TextBlock | ImageBlock], Meta(max_length=MAX_BLOCKS)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class ThinkingBlock(_Strict, frozen=True, tag_field="type", tag="thinking"):
    """Of an earlier answer of another model. Models here are not shown it."""

    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(_Strict, frozen=True, tag_field="type", tag="redacted_thinking"):
    data: str


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Turn(_Strict, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=MAX_BLOCKS)]


class ClientTool(_Strict, frozen=True):
    """A tool that the client runs itself."""

    name: ToolName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None


class AutoChoice(_Strict, frozen=True, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool | None = None


class AnyChoice(_Strict, frozen=True, tag_field="type", tag="any"):
    disable_parallel_tool_use: bool | None = None


class ToolChoice(_Strict, frozen=True, tag_field="type", tag="tool"):
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class NoChoice(_Strict, frozen=True, tag_field="type", tag="none"):
    pass


class Metadata(_Strict, frozen=True):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


class Thinking(_Strict, frozen=True):
    type: Literal["disabled", "enabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class JsonFormat(_Strict, frozen=True, tag_field="type", tag="json_schema"):
    schema: dict[str, Any]


class OutputConfig(_Strict, frozen=True):
    format: JsonFormat | None = None
    effort: str | None = None


class CountBody(_Strict, frozen=True, kw_only=True):
    """`POST /v1/messages/count_tokens`."""

    model: Name
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | Annotated[list[TextBlock], Meta(max_length=MAX_BLOCKS)] | None = None
    tools: Annotated[list[ClientTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesBody(CountBody, frozen=True, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[StopSequence], Meta(max_length=16)] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    """Has no effect: there is one tier."""
    context_id: ContextId | None = msgspec.field(default=None, name="contextId")
    """Ours: the conversation that the call continues."""


decode_messages = BodyDecoder(MessagesBody).decode
decode_count = BodyDecoder(CountBody).decode


def check(body: CountBody) -> None:
    """Rules that hold between fields. Raises `BadRequest`."""
    if body.thinking is not None and body.thinking.type != "disabled":
        raise BadRequest(
            "The models here do not think first: leave 'thinking' out, or set its 'type' to 'disabled'.",
            param="thinking",
            code="unsupported_parameter",
        )
    if body.output_config is not None and body.output_config.effort is not None:
        raise BadRequest(
            "'output_config.effort' is not supported: leave it out.",
            param="output_config.effort",
            code="unsupported_parameter",
        )
    tools = {tool.name for tool in body.tools or ()}
    if isinstance(body.tool_choice, AnyChoice | ToolChoice) and not tools:
        raise BadRequest("'tool_choice' needs 'tools'.", param="tool_choice")
    if isinstance(body.tool_choice, ToolChoice) and body.tool_choice.name not in tools:
        raise BadRequest(
            f"'tool_choice' names {body.tool_choice.name!r}, which is none of 'tools'.",
            param="tool_choice.name",
        )
    for index, tool in enumerate(body.tools or ()):
        check_free_form(tool.input_schema, f"tools[{index}].input_schema")
    if body.output_config is not None and body.output_config.format is not None:
        check_free_form(body.output_config.format.schema, "output_config.format.schema")


def chat_messages(body: CountBody) -> list[Message]:
    """The system prompt and the turns in the shape every chat template understands. Raises `BadRequest`."""
    messages: list[Message] = []
    if body.system:
        content = body.system if isinstance(body.system, str) else _content(body.system, "system")
        messages.append(Message("system", content))
    for index, turn in enumerate(body.messages):
        messages += _turn(turn, f"messages[{index}]")
    if body.messages[-1].role == "assistant":
        raise BadRequest(
            "The last message is the assistant's: beginning its reply for it (prefill) is not supported. "
            "End with a message of the user.",
            param=f"messages[{len(body.messages) - 1}].role",
            code="prefill_not_supported",
        )
    return messages


def prompt_sampling(body: CountBody) -> Sampling:
    """The part of the sampling that the prompt depends on."""
    choice = body.tool_choice
    parallel = None if choice is None or isinstance(choice, NoChoice) else choice.disable_parallel_tool_use
    wanted = body.output_config.format if body.output_config is not None else None
    return Sampling(
        tools=[_function(tool) for tool in body.tools] if body.tools else None,
        tool_choice=_choice(choice) if body.tools else None,
        parallel_tool_calls=None if parallel is None else not parallel,
        response_format=None
        if wanted is None
        else {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": wanted.schema, "strict": True},
        },
    )


def chat_sampling(body: MessagesBody) -> Sampling:
    return msgspec.structs.replace(
        prompt_sampling(body),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k or None,
        stop=body.stop_sequences or None,
    )


def _choice(choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None) -> str | dict[str, Any] | None:
    match choice:
        case AutoChoice():
            return "auto"
        case AnyChoice():
            return "required"
        case ToolChoice(name=name):
            return {"type": "function", "function": {"name": name}}
        case NoChoice():
            return "none"
    return None


def _function(tool: ClientTool) -> dict[str, Any]:
    """The tool in OpenAI's words, as chat templates and engines have it."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _turn(turn: Turn, here: str) -> list[Message]:
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    if not turn.content:
        raise BadRequest("A message's 'content' is empty.", param=f"{here}.content")
    _check_blocks(turn, turn.content, here)
    if turn.role == "assistant":
        return _assistant(turn.content, here)
    messages: list[Message] = []
    said: list[dict[str, Any]] = []
    for index, block in enumerate(turn.content):
        if isinstance(block, TextBlock | ImageBlock):
            said.append(_part(block, f"{here}.content[{index}]"))
        elif isinstance(block, ToolResultBlock):
            if said:
                messages.append(Message(turn.role, _joined(said)))
                said = []
            messages.append(_tool_result(block, f"{here}.content[{index}]"))
    if said:
        messages.append(Message(turn.role, _joined(said)))
    return messages


_BLOCKS_OF: dict[str, tuple[type[Block], ...]] = {
    "system": (TextBlock,),
    "user": (TextBlock, ImageBlock, ToolResultBlock),
    "assistant": (TextBlock, ToolUseBlock, ThinkingBlock, RedactedThinkingBlock),
}


def _check_blocks(turn: Turn, blocks: list[Block], here: str) -> None:
    for index, block in enumerate(blocks):
        if not isinstance(block, _BLOCKS_OF[turn.role]):
            kind, allowed = _tag(type(block)), [_tag(each) for each in _BLOCKS_OF[turn.role]]
            raise BadRequest(
                f"A message of the {turn.role} holds no {kind!r} blocks, only {', '.join(allowed)}.",
                param=f"{here}.content[{index}].type",
                code="invalid_value",
            )


def _tag(kind: type[Block]) -> str:
    return str(kind.__struct_config__.tag)


def _assistant(blocks: list[Block], here: str) -> list[Message]:
    texts = [block for block in blocks if isinstance(block, TextBlock)]
    calls = [
        _tool_call(block, f"{here}.content[{index}].input")
        for index, block in enumerate(blocks)
        if isinstance(block, ToolUseBlock)
    ]
    if not texts and not calls:  # it only thought
        return []
    return [Message("assistant", _content(texts, here) if texts else None, tool_calls=calls or None)]


def _tool_call(block: ToolUseBlock, here: str) -> dict[str, Any]:
    check_free_form(block.input, here)
    arguments = msgspec.json.encode(block.input).decode()
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _tool_result(block: ToolResultBlock, here: str) -> Message:
    """No chat template knows of failed tools: that one failed is told in front of what it said."""
    content = block.content or ""
    parts = [TextBlock(content)] if isinstance(content, str) else content
    if block.is_error:
        parts = [TextBlock("The tool failed:"), *parts]
    return Message("tool", _content(parts, f"{here}.content"), tool_call_id=block.tool_use_id)


def _content(blocks: list[TextBlock] | list[TextBlock | ImageBlock], here: str) -> str | list[dict[str, Any]]:
    return _joined([_part(block, f"{here}[{index}]") for index, block in enumerate(blocks)])


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """OpenAI's content parts, or the text where it is one."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts


def _part(block: TextBlock | ImageBlock, here: str) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    source = block.source
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url
    if not url.startswith("data:image/"):
        raise BadRequest(
            "Images are sent as 'base64' or as 'data:image/...' URLs; nothing is fetched from the network.",
            param=f"{here}.source.url",
        )
    return {"type": "image_url", "image_url": {"url": url}}
