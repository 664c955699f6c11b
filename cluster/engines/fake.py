"""A deterministic engine with scripted latency, tokens and failures, for our tests and for yours.

Tokens are words with their leading space, for prompts and outputs alike, so that counts can be done by
eye. What it answers is decided by the first rule whose `contains` occurs in the last user message; without
one it answers words derived from a hash of the prompt, the same every time. Where the call is held to a JSON
schema, what no rule scripts is the least value that the schema takes.

    FakeEngine(FakeScript(rules=[Rule(contains="capital of France", reply="It is Paris.")]))
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec

from cluster.engines.adapters import Adapters
from cluster.engines.instances import least_instance
from cluster.errors import ClusterError, InvalidCall, from_failure
from cluster.interface import Batch
from cluster.messages import (
    Delta,
    Embed,
    Embeddings,
    EngineStatus,
    Failure,
    Finish,
    Generate,
    Message,
    Usage,
)
from cluster.tokens import Tokens

_TOKEN = re.compile(r"\s*\S+")
_WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper"),
    *("kelp", "larch", "meadow", "nectar", "orchard", "prairie", "quartz", "river", "summit", "tundra"),
    *("umber", "valley", "willow", "yarrow", "zephyr"),
)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do when the last user message contains a text."""

    contains: str
    reply: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """OpenAI tool calls to answer with, instead of text."""
    failure: Failure | None = None
    """Raised as the `ClusterError` it names."""
    failure_after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Tokens that leave before the failure."""
    token_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds between tokens of this answer, where they are not the script's."""


class FakeScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the engine behaves."""

    rules: list[Rule] = []
    output_tokens: Annotated[int, msgspec.Meta(ge=0)] = 16
    """Length of an answer no rule scripts, before `max_tokens` cuts it."""
    first_token_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    token_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds between tokens."""
    tokens_per_batch: Annotated[int, msgspec.Meta(ge=1)] = 1
    dimension: Annotated[int, msgspec.Meta(ge=1)] = 384
    """Of embeddings."""


def words(text: str) -> list[str]:
    """The fake's tokens: words with the white space before them."""
    return _TOKEN.findall(text)


class FakeTokenCounter:
    """Counts as the fake engine does."""

    def count(self, call: Generate | Embed) -> int:
        if isinstance(call, Embed):
            return sum(len(words(text)) for text in call.texts)
        if call.messages is None:
            return len(words(call.prompt or ""))
        return sum(len(words(_text(message))) for message in call.messages)

    def encode(self, call: Generate, *, special: bool = True) -> Tokens:  # noqa: ARG002
        """Digests of the words: there is no vocabulary to look them up in, and no way back."""
        said = [call.prompt or ""] if call.messages is None else map(_text, call.messages)
        texts = [word for text in said for word in words(text)]
        return Tokens([zlib.crc32(text.encode()) for text in texts], texts)

    def decode(self, ids: list[int]) -> str:  # noqa: ARG002
        raise InvalidCall("the tokens of a scripted engine are no way back to its words", param="tokens")


class FakeEngine:
    """Implements `cluster.interface.Engine`."""

    def __init__(self, script: FakeScript | None = None) -> None:
        self.script = script or FakeScript()
        self._counter = FakeTokenCounter()
        self._running = self._completed = self._aborted = 0
        self._prompt_tokens = self._completion_tokens = 0
        self.adapters = Adapters(_pretend, _pretend)
        """Any that it is told of. What it answers depends on the name of the model."""
        self._produced: dict[str, int] = {}

    def produced(self) -> Mapping[str, int]:
        return self._produced

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self._running += 1
        self._produced[call.request_id] = 0
        done = False
        try:
            await self.adapters.ready(call.model)
            async for batch in self._stream(call) if call.stream else self._whole(call):
                done = isinstance(batch[-1], Usage)
                yield batch
        finally:
            self._running -= 1
            self._produced.pop(call.request_id, None)
            self._completed += done
            self._aborted += not done

    async def embed(self, call: Embed) -> Embeddings:
        await asyncio.sleep(self.script.first_token_s)
        return self._embedded(call)

    async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
        """As `cluster.engines.batching.BatchEngine`: a batch takes as long as one call."""
        await asyncio.sleep(self.script.first_token_s)
        return [self._embedded(call) for call in calls]

    def _embedded(self, call: Embed) -> Embeddings:
        tokens = self._counter.count(call)
        self._prompt_tokens += tokens
        self._completed += 1
        vectors = [_embedding(text, self.script.dimension) for text in call.texts]
        return Embeddings(vectors, Usage(prompt_tokens=tokens))

    async def check_health(self) -> None:
        """The fake is always healthy."""

    async def status(self) -> EngineStatus:
        return EngineStatus(
            running=self._running,
            completed=self._completed,
            aborted=self._aborted,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            adapters=self.adapters.loaded,
        )

    async def _whole(self, call: Generate) -> AsyncGenerator[Batch, None]:
        whole: Batch = []
        async for batch in self._stream(call):
            whole += batch
        merged: Batch = [
            Delta(
                text="".join(e.text for e in whole if isinstance(e, Delta) and e.index == index),
                index=index,
                tool_calls=next(
                    (
                        e.tool_calls
                        for e in whole
                        if isinstance(e, Delta) and e.index == index and e.tool_calls
                    ),
                    None,
                ),
            )
            for index in range(call.sampling.n)
        ]
        yield merged + [event for event in whole if not isinstance(event, Delta)]

    async def _stream(self, call: Generate) -> AsyncGenerator[Batch, None]:
        script, rule = self.script, self._rule(call)
        tokens, finish, matched = self._answer(call, rule)
        prompt = self._counter.count(call)
        self._prompt_tokens += prompt
        if script.first_token_s:
            await asyncio.sleep(script.first_token_s)
        choices = range(call.sampling.n)
        stop = len(tokens) if rule is None or rule.failure is None else min(rule.failure_after, len(tokens))
        # Without a pace nothing happens between the tokens: a whole answer is made at once.
        token_s = script.token_s if rule is None or rule.token_s is None else rule.token_s
        size = script.tokens_per_batch if call.stream or token_s else max(1, stop)
        for start in range(0, stop, size):
            if start and token_s:
                await asyncio.sleep(token_s * size)
            piece = tokens[start : min(start + size, stop)]
            self._completion_tokens += len(piece) * len(choices)
            self._produced[call.request_id] = (start + len(piece)) * len(choices)
            texts = piece if call.stream else ["".join(piece)]
            yield [Delta(text=text, index=index) for index in choices for text in texts]
        if rule is not None and rule.failure is not None:
            raise from_failure(rule.failure)
        if rule is not None and rule.tool_calls is not None:
            yield [Delta(tool_calls=rule.tool_calls, index=index) for index in choices]
        yield [
            *(Finish(finish, index, matched) for index in choices),
            Usage(prompt_tokens=prompt, completion_tokens=len(tokens) * len(choices)),
        ]

    def _rule(self, call: Generate) -> Rule | None:
        asked = call.prompt or ""
        for message in reversed(call.messages or ()):
            if message.role == "user":
                asked = _text(message)
                break
        return next((rule for rule in self.script.rules if rule.contains in asked), None)

    def _answer(
        self, call: Generate, rule: Rule | None
    ) -> tuple[list[str], Literal["stop", "length", "tool_calls"], str | None]:
        """The tokens of the answer, cut at `max_tokens`, why it ends, and the stop string that it meets."""
        if rule is not None and rule.tool_calls is not None:
            return [], "tool_calls", None
        if rule is not None and rule.reply is not None:
            tokens = words(rule.reply)
        elif (held := _held_to(call)) is not None:
            tokens = words(json.dumps(least_instance(held)))
        else:
            seed = repr((call.model, call.prompt, call.messages, call.sampling.seed)).encode()
            digest = hashlib.blake2b(seed, digest_size=32).digest()
            length = call.max_tokens if call.sampling.ignore_eos else self.script.output_tokens
            tokens = [
                (" " if i else "") + _WORDS[digest[i % len(digest)] % len(_WORDS)] for i in range(length)
            ]
        kept = tokens[: call.max_tokens]
        stopped = _cut(kept, call.sampling.stop or [])
        if stopped is not None:
            return stopped[0], "stop", stopped[1]
        return kept, "length" if len(tokens) > call.max_tokens else "stop", None


async def _pretend(_name: str, _source: str = "") -> None:
    """Loads or unloads nothing."""


def _text(message: Message) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.get("text", "") for part in message.content if part.get("type") == "text")
    return message.content or ""


def _held_to(call: Generate) -> Any:
    """The JSON schema that the answer has to meet; None where it is free."""
    wanted = call.sampling.response_format or {}
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    described: dict[str, Any] = wanted.get("json_schema", {})
    return described.get("schema")


def _cut(tokens: list[str], stops: list[str]) -> tuple[list[str], str] | None:
    """The tokens before the first of the stop strings, and that one; None when there is none in them."""
    text = "".join(tokens)
    found = min(((at, stop) for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if found is None:
        return None
    end, stop = found
    starts = accumulate((len(token) for token in tokens), initial=0)
    return [token[: end - start] for token, start in zip(tokens, starts, strict=False) if start < end], stop


def _embedding(text: str, dimension: int) -> list[float]:
    """Words hashed into buckets: texts that share words are near each other. L2-normalised."""
    vector = [0.0] * dimension
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "big") % dimension] += 1.0
    norm = math.sqrt(sum(value * value for value in vector))
    return [value / norm for value in vector]
