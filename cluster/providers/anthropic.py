"""A model behind Anthropic's Messages API as a pool, called from the process that holds it: no extra hop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from cluster.anthropic_stream import MessageReader
from cluster.anthropic_wire import reply_error, reply_events, request_body
from cluster.config import AnthropicSpec
from cluster.errors import EngineFailed, InvalidCall
from cluster.interface import Batch, ModelInfo
from cluster.messages import Embed, Embeddings, Generate
from cluster.providers.http1 import HttpFailed
from cluster.providers.remote import RemotePool, key_of, read_to_end, text_bytes
from cluster.tokens import TokenCounter

VERSION = "2023-06-01"
"""Of the API: what the wire format is as of."""


class AnthropicPool(RemotePool):
    """Implements `cluster.interface.Pool` over HTTP.

    Args:
        environment: where `spec.api_key_env` is looked up, once. Raises `ConfigError` when it is missing.
    """

    def __init__(
        self, spec: AnthropicSpec, info: ModelInfo, counter: TokenCounter, environment: Mapping[str, str]
    ) -> None:
        key = key_of(spec, environment)
        headers = {"anthropic-version": VERSION} | ({"x-api-key": key} if key is not None else {})
        super().__init__(spec, info, counter, headers, reply_error)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        body = request_body(call)
        body["model"] = self._model
        try:
            async with self._remote.post("/messages", body, call.deadline) as response:
                if not call.stream:
                    yield self._with_usage(call, reply_events(await self._remote.read(response)))
                    return
                reader, sent = MessageReader(), 0
                async for payload in self._remote.events(response):
                    if batch := reader.read(payload):
                        sent += text_bytes(batch)
                        yield batch
                    if reader.complete:
                        break
                if not reader.complete:
                    raise EngineFailed("the provider cut the stream before its end")
                yield [reader.usage or self._upper_bound(call, sent)]
                await read_to_end(response)
        except (TimeoutError, HttpFailed) as error:
            self._remote.failed(error)

    async def embed(self, call: Embed) -> Embeddings:
        raise InvalidCall(f"model {call.model} makes no embeddings", param="model")
