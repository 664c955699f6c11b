"""A remote OpenAI-compatible endpoint as a pool, called from the process that holds it: no extra hop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from cluster.config import OpenAISpec
from cluster.errors import ConfigError, DeadlineExceeded, EngineFailed, ModelUnavailable
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Embed, Embeddings, Generate, Usage
from cluster.openai_wire import reply_embeddings, reply_error, reply_events, request_body, sse_payloads
from cluster.tokens import TokenCounter

MAX_REPLY_BYTES = 16 * 1024 * 1024
MAX_EVENT_BYTES = 1024 * 1024
CONNECT_S = 5.0
RETRY_AFTER_S = 5.0
MAX_RETRY_AFTER_S = 3600.0
LAST_CHUNK_S = 0.1
DEADLINE_PASSED = "the call's deadline passed"


class OpenAIPool:
    """Implements `cluster.interface.Pool` over HTTP.

    Args:
        environment: where `spec.api_key_env` is looked up, once. Raises `ConfigError` when it is missing.
    """

    def __init__(
        self, spec: OpenAISpec, info: ModelInfo, counter: TokenCounter, environment: Mapping[str, str]
    ) -> None:
        self.info = info
        self._spec = spec
        self._counter = counter
        self._url = spec.base_url.rstrip("/")
        self._model = spec.model or spec.name
        self._headers = {"content-type": "application/json"}
        if spec.api_key_env is not None:
            key = environment.get(spec.api_key_env)
            if not key:
                raise ConfigError(
                    f"model {spec.name}: the environment variable {spec.api_key_env} is not set",
                    param="api_key_env",
                )
            self._headers["authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    def count_tokens(self, call: Generate | Embed) -> int:
        return self._counter.count(call)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        body = request_body(call)
        body["model"] = self._model
        path = "/chat/completions" if call.messages is not None else "/completions"
        try:
            async with self._post(path, body, call.deadline) as response:
                if not call.stream:
                    batch = reply_events(await _read(response))
                    if not (batch and isinstance(batch[-1], Usage)):
                        batch.append(self._upper_bound(call, _text_bytes(batch)))
                    yield batch
                    return
                usage, sent = None, 0
                async for data in _events(response):
                    batch = reply_events(data)
                    # Usage comes last in our model; providers repeat it, or send it before the end.
                    usage = next((event for event in batch if isinstance(event, Usage)), usage)
                    rest: Batch = [event for event in batch if not isinstance(event, Usage)]
                    if rest:
                        sent += _text_bytes(rest)
                        yield rest
                yield [usage or self._upper_bound(call, sent)]
                await _read_to_end(response)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise self._explain(error) from error

    async def embed(self, call: Embed) -> Embeddings:
        body = {"model": self._model, "input": call.texts, "encoding_format": "float"}
        try:
            async with self._post("/embeddings", body, call.deadline) as response:
                return reply_embeddings(
                    await _read(response), texts=len(call.texts), prompt_tokens=self.count_tokens(call)
                )
        except (TimeoutError, aiohttp.ClientError) as error:
            raise self._explain(error) from error

    async def ready(self) -> bool:
        # A provider is taken to be up: asking it costs money with some, and each call finds out.
        return True

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _post(self, path: str, body: dict[str, Any], deadline: float) -> Any:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._spec.max_connections, keepalive_timeout=30)
            # No cookies: what a provider sets for one tenant's call would travel with the next one's.
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()
            )
        left = deadline - time.time()
        if left <= 0:
            raise DeadlineExceeded(DEADLINE_PASSED)
        return self._session.post(
            self._url + path,
            data=msgspec.json.encode(body),
            timeout=aiohttp.ClientTimeout(total=left, sock_connect=CONNECT_S),
            allow_redirects=False,
        )

    def _upper_bound(self, call: Generate, sent: int) -> Usage:
        """What is charged when a provider reports no usage: a token covers at least one byte."""
        most = call.max_tokens * call.sampling.n
        return Usage(prompt_tokens=self.count_tokens(call), completion_tokens=min(sent, most))

    def _explain(self, error: Exception) -> Exception:
        name = self.info.name
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
            return ModelUnavailable(
                f"the provider of model {name} cannot be reached", retry_after_s=RETRY_AFTER_S
            )
        if isinstance(error, TimeoutError):  # the total, which ends at the deadline
            return DeadlineExceeded(DEADLINE_PASSED)
        return EngineFailed(f"the provider of model {name} broke off: {type(error).__name__}")


def _text_bytes(batch: Batch) -> int:
    deltas = [event for event in batch if isinstance(event, Delta)]
    return sum(len(d.text.encode()) + len(msgspec.json.encode(d.tool_calls or ())) - 2 for d in deltas)


def _seconds(retry_after: str) -> float | None:
    """A Retry-After header in seconds, bounded. None where it is a date or nothing sensible."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), MAX_RETRY_AFTER_S)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, bounded; raises the error it stands for."""
    body = await response.content.read(MAX_REPLY_BYTES + 1)
    while len(body) <= MAX_REPLY_BYTES and (more := await response.content.read(MAX_REPLY_BYTES)):
        body += more
    if len(body) > MAX_REPLY_BYTES:
        raise EngineFailed("the provider's reply is too large")
    if response.status >= 300:
        after = _seconds(response.headers.get("retry-after", ""))
        raise reply_error(response.status, body, retry_after_s=after)
    return body


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    """The payloads of an event stream. One that ends without `[DONE]` was cut, and is an error."""
    if response.status >= 300:
        await _read(response)
    buffer = b""
    async for chunk in response.content.iter_any():
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        if len(buffer) > MAX_EVENT_BYTES:
            raise EngineFailed("the provider's event is too large")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() == b"[DONE]":
                return
            for payload in sse_payloads(line.decode(errors="replace")):
                yield payload
    raise EngineFailed("the provider cut the stream before its end")


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    """Reads what HTTP itself sends behind `[DONE]`: a connection left before that cannot be used again."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LAST_CHUNK_S):
            while not response.content.at_eof():
                await response.content.readany()
