"""OpenAI's request bodies, decoded and checked, and what they mean to a model.

    raw ──► ChatBody ──► messages, Sampling        CompletionBody ──► prompt, Sampling
            EmbeddingBody ──► texts

A body says only what is declared here: an unknown field, a wrong type or a value out of range is a
`BadRequest` that names it. Beside OpenAI's fields a chat may name a `contextId`, and all may use vLLM's
extra sampling fields. `openai_replies.py` has the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cluster.messages import Message, Role, Sampling
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import BodyDecoder, check_free_form

MAX_MESSAGES = 4096
MAX_TEXTS = 2048
MAX_PROMPTS = 32
MAX_TOOLS = 128

Name = Annotated[str, Meta(min_length=1, max_length=256)]
ContextId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
FunctionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = (
    Annotated[str, Meta(min_length=1, max_length=256)]
    | Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=4)]
)


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing but the declared fields. What the client left out stays out when it is passed on."""


class TextPart(_Strict, frozen=True, tag_field="type", tag="text"):
    text: str


class ImageUrl(_Strict, frozen=True):
    url: str
    """A `data:` URL: the engine fetches nothing from the network on a client's word."""
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Strict, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class InputAudio(_Strict, frozen=True):
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(_Strict, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: InputAudio


class FunctionCall(_Strict, frozen=True):
    name: FunctionName
    arguments: str


class ToolCall(_Strict, frozen=True):
    id: Name
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(_Strict, frozen=True):
    """One message of a chat, as clients send it: also as they got it from an earlier answer."""

    role: Role
    content: str | list[TextPart | ImagePart | AudioPart] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Name | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: None = None
    function_call: None = None


class FunctionSpec(_Strict, frozen=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict, frozen=True):
    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(_Strict, frozen=True):
    name: FunctionName


class NamedToolChoice(_Strict, frozen=True):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(_Strict, frozen=True, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(_Strict, frozen=True, tag_field="type", tag="json_object"):
    pass


class JsonSchema(_Strict, frozen=True):
    name: FunctionName
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(_Strict, frozen=True, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


class StreamOptions(_Strict, frozen=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Decoding(_Strict, frozen=True, kw_only=True):
    """What chats and completions share."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None
    ) = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=512)] | None = None
    """Calls with the same one are likely to begin alike, and go to one replica as long as it has room."""
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None


class ChatBody(_Decoding, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    context_id: ContextId | None = msgspec.field(default=None, name="contextId")
    """Continues the conversation kept under this id: `messages` holds only the new turns."""


class CompletionBody(_Decoding, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class EmbeddingBody(_Strict, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    model: Name
    input: str | Annotated[list[Any], Meta(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None


decode_chat = BodyDecoder(ChatBody).decode
decode_completion = BodyDecoder(CompletionBody).decode
decode_embedding = BodyDecoder(EmbeddingBody).decode


def check_chat(body: ChatBody) -> None:
    """Rules that hold between fields. Raises `BadRequest`."""
    _check_decoding(body, body.max_completion_tokens or body.max_tokens)
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise BadRequest("'max_tokens' and 'max_completion_tokens' differ.", param="max_completion_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    if body.tool_choice not in (None, "none") and not body.tools:
        raise BadRequest("'tool_choice' needs 'tools'.", param="tool_choice")
    if body.context_id is not None and (body.n or 1) > 1:
        raise BadRequest("'contextId' keeps one reply: 'n' must be 1.", param="n")
    for index, tool in enumerate(body.tools or ()):
        check_free_form(tool.function.parameters, f"tools[{index}].function.parameters")
    if isinstance(body.response_format, JsonSchemaFormat):
        check_free_form(body.response_format.json_schema.schema, "response_format.json_schema.schema")


def check_completion(body: CompletionBody) -> list[str]:
    """Rules that hold between fields; returns the prompts. Raises `BadRequest`."""
    _check_decoding(body, body.max_tokens)
    for field, value in (("echo", body.echo), ("suffix", body.suffix)):
        if value:
            raise _unsupported(field)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise BadRequest("'best_of' other than 'n' is not supported.", param="best_of")
    prompts = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if len(prompts) > MAX_PROMPTS or not all(isinstance(prompt, str) for prompt in prompts):
        raise BadRequest(
            f"'prompt' must be a string or a list of at most {MAX_PROMPTS} strings, not of tokens.",
            param="prompt",
        )
    if not prompts or not all(prompts):
        raise BadRequest("'prompt' is empty.", param="prompt")
    return prompts


def chat_messages(body: ChatBody) -> list[Message]:
    """The body's messages in the shape every chat template understands. Raises `BadRequest`."""
    return messages_of(body.messages)


def messages_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """As `chat_messages`."""
    return [_message(message, index) for index, message in enumerate(messages)]


def chat_sampling(body: ChatBody) -> Sampling:
    return _sampling(
        body,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        tools=msgspec.to_builtins(body.tools) if body.tools else None,
        tool_choice=_plain(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_plain(body.response_format),
    )


def completion_sampling(body: CompletionBody) -> Sampling:
    return _sampling(body, logprobs=body.logprobs is not None, top_logprobs=body.logprobs)


def embedding_texts(body: EmbeddingBody) -> list[str]:
    """The texts to embed, in order. Raises `BadRequest`."""
    if body.dimensions is not None:
        raise _unsupported("dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRequest(
                "'input' must be a string or a list of strings; token ids are not supported.", param="input"
            )
        if not text:
            raise BadRequest(f"'input[{index}]' is empty.", param="input")
    return texts


def context_length_exceeded(limit: int, prompt: int, wanted: int | None, param: str) -> BadRequest:
    """The answer to a call that does not fit its model."""
    asked = f" and asks for {wanted} in the reply" if wanted else ""
    return BadRequest(
        f"This model's maximum context length is {limit} tokens. {param!r} has {prompt} tokens{asked}. "
        "Shorten it or lower the number of tokens to generate.",
        param=param,
        code="context_length_exceeded",
    )


def _check_decoding(body: _Decoding, max_tokens: int | None) -> None:
    if body.stream_options is not None and not body.stream:
        raise BadRequest("'stream_options' needs 'stream' to be true.", param="stream_options")
    if body.min_tokens and max_tokens and body.min_tokens > max_tokens:
        raise BadRequest("'min_tokens' is greater than the most tokens to generate.", param="min_tokens")
    for token in body.logit_bias or ():
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise BadRequest("The keys of 'logit_bias' must be token ids.", param="logit_bias")
    check_metadata(body.metadata)


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raises `BadRequest` for what is longer than OpenAI allows."""
    for key, value in (metadata or {}).items():
        if len(key) > 64 or len(value) > 512:
            raise BadRequest("'metadata' holds a key or value that is too long.", param="metadata")


def _sampling(body: _Decoding, **rest: Any) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        n=body.n or 1,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=body.logit_bias,
        min_tokens=body.min_tokens,
        ignore_eos=bool(body.ignore_eos),
        **rest,
    )


def _message(message: ChatMessage, index: int) -> Message:
    here = f"messages[{index}]"
    if message.role == "tool" and message.tool_call_id is None:
        raise BadRequest("A tool message needs 'tool_call_id'.", param=f"{here}.tool_call_id")
    if message.tool_calls and message.role != "assistant":
        raise BadRequest("Only an assistant message has 'tool_calls'.", param=f"{here}.tool_calls")
    content = message.content
    if content is None and not message.tool_calls:
        raise BadRequest("A message needs 'content'.", param=f"{here}.content")
    parts = _parts(content, here) if isinstance(content, list) else content
    return Message(
        role=message.role,
        content=parts,
        name=message.name,
        tool_calls=_plain(message.tool_calls) if message.tool_calls else None,
        tool_call_id=message.tool_call_id,
    )


def _parts(parts: list[TextPart | ImagePart | AudioPart], here: str) -> list[dict[str, Any]]:
    if not parts:
        raise BadRequest("A message's 'content' is empty.", param=f"{here}.content")
    for index, part in enumerate(parts):
        if isinstance(part, ImagePart) and not part.image_url.url.startswith("data:image/"):
            raise BadRequest(
                "Images are sent as 'data:image/...' URLs; nothing is fetched from the network.",
                param=f"{here}.content[{index}].image_url.url",
            )
    plain: list[dict[str, Any]] = msgspec.to_builtins(parts)
    return plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return msgspec.to_builtins(value)


def _unsupported(field: str) -> BadRequest:
    return BadRequest(f"{field!r} is not supported.", param=field, code="unsupported_parameter")
