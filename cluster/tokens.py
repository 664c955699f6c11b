"""Counting a call's prompt tokens before it is sent, with the model's own tokenizer and chat template.

Quotas are reserved on this count, so it must never be below what the engine will charge. With the model's
folder at hand it is exact: the same `tokenizer.json` and the same Jinja template as the engine's. Without
one (a remote provider) it is an upper bound: a token of a byte-level vocabulary covers at least one byte.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
import tokenizers
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cluster.errors import ConfigError, InvalidCall
from cluster.messages import Embed, Generate, Message

MESSAGE_OVERHEAD_TOKENS = 16
"""Upper bound of what a template adds around one message, used where the template is unknown."""

TEMPLATE_OVERHEAD_TOKENS = 64
"""The same for what a template adds once: a default system prompt, the date, the assistant's header."""

TOOLS_OVERHEAD_TOKENS = 512
"""The same for the instructions a template adds when there are tools."""

MEDIA_PART_TOKENS = 4096
"""Booked for an image or audio part, whose cost only the engine knows; settlement corrects it."""


class TokenCounter(Protocol):
    def count(self, call: Generate | Embed) -> int:
        """Prompt tokens of the call. Raises `InvalidCall` when its template refuses the messages."""
        ...


class Tokens(NamedTuple):
    """A prompt as the model reads it."""

    ids: list[int]
    texts: list[str]
    """As the vocabulary has them, where a space may be another character."""


@runtime_checkable
class Tokenizer(Protocol):
    """A counter that has the model's own tokenizer."""

    def encode(self, call: Generate, *, special: bool = True) -> Tokens:
        """The call's prompt. `special`: whether a text has the tokens around it that models expect; messages
        have what their template says.

        Raises `InvalidCall` for what only the engine can turn into tokens, and as `TokenCounter.count`.
        """
        ...

    def decode(self, ids: list[int]) -> str:
        """Raises `InvalidCall` for a token that the model does not know."""
        ...


class ModelTokenCounter:
    """Counts exactly as the engine that serves the model folder does."""

    def __init__(self, folder: Path) -> None:
        tokenizer_file = folder / "tokenizer.json"
        if not tokenizer_file.is_file():
            raise ConfigError(f"no tokenizer.json in the model folder {folder}", param="source")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings = _read_json(folder / "tokenizer_config.json")
        template_file = folder / "chat_template.jinja"
        source = template_file.read_text() if template_file.is_file() else settings.get("chat_template") or ""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        try:
            self._template = environment.from_string(source) if source else None
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template in {folder} is broken: {error}", param="source") from error
        self._special = {
            name: token if isinstance(token, str) else token.get("content", "")
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if (token := settings.get(name))
        }

    def count(self, call: Generate | Embed) -> int:
        if isinstance(call, Embed):
            return sum(self._length(text, special=True) for text in call.texts)
        if call.messages is None:
            return self._length(call.prompt or "", special=True)
        media = sum(MEDIA_PART_TOKENS for message in call.messages for part in _media(message))
        return media + self._length(self._render(call), special=False)

    def encode(self, call: Generate, *, special: bool = True) -> Tokens:
        if call.messages is None:
            found = self._tokenizer.encode(call.prompt or "", add_special_tokens=special)
        elif any(_media(message) for message in call.messages):
            raise InvalidCall("only the engine knows the tokens of images and sounds", param="messages")
        else:
            found = self._tokenizer.encode(self._render(call), add_special_tokens=False)
        return Tokens(found.ids, found.tokens)

    def decode(self, ids: list[int]) -> str:
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        for index, token in enumerate(ids):
            if not 0 <= token < size:
                raise InvalidCall(
                    f"the model has the tokens 0 to {size - 1}, not {token}", param=f"tokens[{index}]"
                )
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def _length(self, text: str, *, special: bool) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def _render(self, call: Generate) -> str:
        if self._template is None:
            raise InvalidCall(
                "this model has no chat template; use /v1/completions with a prompt", param="messages"
            )
        messages = [_plain(message) for message in call.messages or ()]
        try:
            return self._template.render(
                messages=messages, tools=call.sampling.tools, add_generation_prompt=True, **self._special
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InvalidCall(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error


class ByteTokenCounter:
    """An upper bound for models whose tokenizer is not at hand: one token a byte of UTF-8."""

    def count(self, call: Generate | Embed) -> int:
        if isinstance(call, Embed):
            return sum(len(text.encode()) + 2 for text in call.texts)
        if call.messages is None:
            return len((call.prompt or "").encode()) + 2
        added = TEMPLATE_OVERHEAD_TOKENS
        if call.sampling.tools:
            added += TOOLS_OVERHEAD_TOKENS + len(msgspec.json.encode(call.sampling.tools))
        return added + sum(_message_bytes(message) + MESSAGE_OVERHEAD_TOKENS for message in call.messages)


def counter_for(folder: Path | None) -> TokenCounter:
    """The exact counter of a model folder, or the bound when there is none."""
    return ModelTokenCounter(folder) if folder is not None else ByteTokenCounter()


def _message_bytes(message: Message) -> int:
    media = sum(MEDIA_PART_TOKENS for _ in _media(message))
    ids = (message.name or "") + (message.tool_call_id or "")
    tool_calls = len(msgspec.json.encode(message.tool_calls)) if message.tool_calls else 0
    return media + len(_text(message).encode()) + len(ids.encode()) + tool_calls


def _plain(message: Message) -> dict[str, Any]:
    """The message as vLLM hands it to templates: text parts joined, media left out, arguments as objects."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    fields["content"] = _text(message)
    if message.tool_calls:
        fields["tool_calls"] = [_with_arguments(tool_call) for tool_call in message.tool_calls]
    return fields


def _text(message: Message) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.get("text", "") for part in message.content if part.get("type") == "text")
    return message.content or ""


def _with_arguments(tool_call: dict[str, Any]) -> dict[str, Any]:
    """The tool call with its arguments as an object, whatever the client sent."""
    function = tool_call.get("function")
    if not isinstance(function, dict):
        return tool_call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    return {
        **tool_call,
        "function": {**function, "arguments": arguments if isinstance(arguments, dict) else {}},
    }


def _media(message: Message) -> list[dict[str, Any]]:
    if not isinstance(message.content, list):
        return []
    return [part for part in message.content if part.get("type") != "text"]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


class _GenerationBlock(Extension):
    """`{% generation %}`, with which training marks what the assistant said; here only its body counts."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`tojson` as chat templates mean it: Jinja's own escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)
