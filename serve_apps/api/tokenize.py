"""`POST /v1/tokenize` and `/v1/detokenize`, in vLLM's shapes, with the tokenizer that the gateway has itself.

Both count as a request and take no tokens of a quota.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from cluster.messages import Generate, Sampling
from serve_apps.gateway.charging import charged
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.generating import aside
from serve_apps.gateway.metering import FreeMeter
from serve_apps.gateway.routing import find_tokenizer
from serve_apps.translators.decoding import BodyDecoder, check_free_form
from serve_apps.translators.openai import MAX_MESSAGES, MAX_TOOLS, ChatMessage, Name, Tool, messages_of

MAX_TOKENS = 256 * 1024
"""Of one call that turns tokens back into text."""


class TokenizeBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/tokenize`: of a prompt, or of messages as the model's chat template has them."""

    model: Name
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    add_special_tokens: bool | None = None
    """Whether a prompt has the tokens around it that the model expects. Default: it has."""
    return_token_strs: bool | None = None


class Tokenized(Struct, frozen=True, omit_defaults=True):
    count: int
    max_model_len: int
    """Tokens of prompt and output together that the model has room for."""
    tokens: list[int]
    token_strs: list[str] | None = None
    """As the vocabulary has them, where a space may be another character."""


class DetokenizeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/detokenize`."""

    model: Name
    tokens: Annotated[list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=MAX_TOKENS)]


class Detokenized(Struct, frozen=True):
    prompt: str


_decode_tokenize = BodyDecoder(TokenizeBody).decode
_decode_detokenize = BodyDecoder(DetokenizeBody).decode


async def tokenize(request: Request) -> None:
    gateway, exchange, _ = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = _decode_tokenize(raw)
    tokenizer = find_tokenizer(request, body.model)
    encode = partial(tokenizer.encode, special=body.add_special_tokens is not False)
    call = _prompt(exchange.id, exchange.deadline, body)
    async with charged(request, FreeMeter(), Demand(body.model, 0, 0, seconds=exchange.seconds)):
        tokens = await aside(len(raw), encode, call)
        answer = Tokenized(
            len(tokens.ids),
            gateway.pools[body.model].info.max_context,
            tokens.ids,
            tokens.texts if body.return_token_strs else None,
        )
        await exchange.respond(200, msgspec.json.encode(answer))


async def detokenize(request: Request) -> None:
    gateway, exchange, _ = request
    raw = await exchange.body(gateway.settings.max_body_bytes)
    body = _decode_detokenize(raw)
    tokenizer = find_tokenizer(request, body.model)
    async with charged(request, FreeMeter(), Demand(body.model, 0, 0, seconds=exchange.seconds)):
        prompt = await aside(len(raw), tokenizer.decode, body.tokens)
        await exchange.respond(200, msgspec.json.encode(Detokenized(prompt)))


def _prompt(request_id: str, deadline: float, body: TokenizeBody) -> Generate:
    """Raises `BadRequest`."""
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Give either 'prompt' or 'messages'.", param="prompt")
    for field in ("tools",) if body.messages is None else ("add_special_tokens",):
        if getattr(body, field) is not None:
            other = "messages" if body.messages is None else "prompt"
            raise BadRequest(f"{field!r} goes with {other!r}.", param=field)
    for index, tool in enumerate(body.tools or ()):
        check_free_form(tool.function.parameters, f"tools[{index}].function.parameters")
    tools = msgspec.to_builtins(body.tools) if body.tools else None
    return Generate(
        request_id=request_id,
        model=body.model,
        max_tokens=1,
        deadline=deadline,
        messages=None if body.messages is None else messages_of(body.messages),
        prompt=body.prompt,
        sampling=Sampling(tools=tools),
    )
