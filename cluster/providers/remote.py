"""What all remote endpoints share: an address, a key, connections that are kept, and bounds on what is read.

Nothing a caller says decides where a call goes, and no redirect is followed: the key and the prompt go to the
operator's `base_url` and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NoReturn

import msgspec

from cluster.config import RemoteSpec
from cluster.errors import ClusterError, ConfigError, DeadlineExceeded, EngineFailed, ModelUnavailable
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Embed, Generate, Usage
from cluster.providers.http1 import Connection, Http1Client, HttpFailed, Unreachable
from cluster.tokens import TokenCounter

MAX_REPLY_BYTES = 16 * 1024 * 1024
MAX_EVENT_BYTES = 1024 * 1024
MAX_KEY_BYTES = 4096
RETRY_AFTER_S = 5.0
MAX_RETRY_AFTER_S = 3600.0
LAST_CHUNK_S = 0.1
DEADLINE_PASSED = "the call's deadline passed"

ErrorOf = Callable[[int, bytes, float | None], ClusterError]
"""The error that a reply stands for: of its status of 300 or above, body, and `Retry-After` in seconds."""


class Remote:
    """The HTTP end of one remote model."""

    def __init__(self, spec: RemoteSpec, headers: Mapping[str, str], error_of: ErrorOf) -> None:
        """`headers` go with every call. Raises `ConfigError` for a URL or a key that cannot be sent."""
        self._name = spec.name
        self._error_of = error_of
        try:
            self._client = Http1Client(
                spec.base_url, {"content-type": "application/json", **headers}, spec.max_connections
            )
        except ValueError as error:
            raise ConfigError(f"model {spec.name}: {error}") from error

    def post(
        self, path: str, body: dict[str, Any], deadline: float
    ) -> AbstractAsyncContextManager[Connection]:
        """The reply, which ends by the deadline. Raises `DeadlineExceeded`."""
        left = deadline - time.time()
        if left <= 0:
            raise DeadlineExceeded(DEADLINE_PASSED)
        return self._client.post(path, msgspec.json.encode(body), left)

    async def read(self, reply: Connection) -> bytes:
        """The whole body, bounded; raises the error it stands for."""
        parts, size = [], 0
        while part := await reply.part():
            parts.append(part)
            size += len(part)
            if size > MAX_REPLY_BYTES:
                raise EngineFailed("the provider's reply is too large")
        body = b"".join(parts)
        if reply.status >= 300:
            retry_after = reply.headers.get(b"retry-after", b"").decode("latin-1")
            raise self._error_of(reply.status, body, seconds_of(retry_after))
        return body

    async def events(self, reply: Connection) -> AsyncGenerator[str, None]:
        """The payloads of an event stream. Where it ends is its dialect's to know."""
        if reply.status >= 300:
            await self.read(reply)
        buffer = b""
        while part := await reply.part():
            buffer += part
            *lines, buffer = buffer.split(b"\n")
            if len(buffer) > MAX_EVENT_BYTES:
                raise EngineFailed("the provider's event is too large")
            for line in lines:
                for field in line.decode(errors="replace").split("\r"):
                    if field.startswith("data:"):
                        yield field[5:].strip()

    def failed(self, error: Exception) -> NoReturn:
        """Raises what a failure of HTTP means to a caller."""
        if isinstance(error, Unreachable):
            raise ModelUnavailable(
                f"the provider of model {self._name} cannot be reached", retry_after_s=RETRY_AFTER_S
            ) from error
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(DEADLINE_PASSED) from error
        raise EngineFailed(f"the provider of model {self._name} broke off: {error}") from error

    async def close(self) -> None:
        self._client.close()


class RemotePool:
    """What pools over a remote endpoint share; the dialects add how they ask and what they hear."""

    def __init__(
        self,
        spec: RemoteSpec,
        info: ModelInfo,
        counter: TokenCounter,
        headers: Mapping[str, str],
        error_of: ErrorOf,
    ) -> None:
        """As `Remote`."""
        self.info = info
        self._counter = counter
        self._model = spec.model or spec.name
        self._remote = Remote(spec, headers, error_of)

    def count_tokens(self, call: Generate | Embed) -> int:
        return self._counter.count(call)

    async def ready(self) -> bool:
        # A provider is taken to be up: asking it costs money with some, and each call finds out.
        return True

    async def close(self) -> None:
        await self._remote.close()

    def _with_usage(self, call: Generate, batch: Batch) -> Batch:
        """A whole reply, which ends with its usage."""
        if batch and isinstance(batch[-1], Usage):
            return batch
        return [*batch, self._upper_bound(call, text_bytes(batch))]

    def _upper_bound(self, call: Generate, sent: int) -> Usage:
        """What is charged when a provider reports no usage: a token covers at least one byte."""
        most = call.max_tokens * call.sampling.n
        return Usage(prompt_tokens=self.count_tokens(call), completion_tokens=min(sent, most))


def key_of(spec: RemoteSpec, environment: Mapping[str, str]) -> str | None:
    """The provider's key, which is never shown. Raises `ConfigError` where it should be and is not."""
    if spec.api_key_env is not None:
        key = environment.get(spec.api_key_env, "")
        if not key:
            raise ConfigError(
                f"model {spec.name}: the environment variable {spec.api_key_env} is not set",
                param="api_key_env",
            )
        return key
    if spec.api_key_file is None:
        return None
    try:
        with spec.api_key_file.open() as file:
            key = file.read(MAX_KEY_BYTES + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model {spec.name}: the file {spec.api_key_file} cannot be read: {type(error).__name__}",
            param="api_key_file",
        ) from error
    if not key or len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"model {spec.name}: the file {spec.api_key_file} must hold the key and nothing else",
            param="api_key_file",
        )
    return key


def seconds_of(retry_after: str) -> float | None:
    """A Retry-After header in seconds, bounded. None where it is a date or nothing sensible."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), MAX_RETRY_AFTER_S)


async def read_to_end(reply: Connection) -> None:
    """Reads what HTTP itself sends behind the last event: a connection left before cannot be used again."""
    with suppress(TimeoutError, HttpFailed):
        async with asyncio.timeout(LAST_CHUNK_S):
            while await reply.part():
                pass


def text_bytes(batch: Batch) -> int:
    """Bytes of all that the events say: at least as many as it had tokens."""
    deltas = [event for event in batch if isinstance(event, Delta)]
    return sum(len(d.text.encode()) + len(msgspec.json.encode(d.tool_calls or ())) - 2 for d in deltas)
