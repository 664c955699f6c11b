"""A remote OpenAI-compatible endpoint as a pool, called from the process that holds it: no extra hop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from cluster.config import OpenAISpec
from cluster.errors import EngineFailed
from cluster.interface import Batch, ModelInfo
from cluster.messages import Embed, Embeddings, Generate, Usage
from cluster.openai_wire import reply_embeddings, reply_error, reply_events, request_body
from cluster.providers.http1 import Connection, HttpFailed
from cluster.providers.remote import RemotePool, key_of, read_to_end, text_bytes
from cluster.tokens import TokenCounter

DONE = "[DONE]"


class OpenAIPool(RemotePool):
    """Implements `cluster.interface.Pool` over HTTP.

    Args:
        environment: where `spec.api_key_env` is looked up, once. Raises `ConfigError` when it is missing.
    """

    def __init__(
        self, spec: OpenAISpec, info: ModelInfo, counter: TokenCounter, environment: Mapping[str, str]
    ) -> None:
        key = key_of(spec, environment)
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        super().__init__(spec, info, counter, headers, reply_error)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        body = request_body(call)
        body["model"] = self._model
        path = "/chat/completions" if call.messages is not None else "/completions"
        try:
            async with self._remote.post(path, body, call.deadline) as response:
                if not call.stream:
                    yield self._with_usage(call, reply_events(await self._remote.read(response)))
                    return
                usage, sent = None, 0
                async for data in self._payloads(response):
                    batch = reply_events(data)
                    # Usage comes last in our model; providers repeat it, or send it before the end.
                    usage = next((event for event in batch if isinstance(event, Usage)), usage)
                    rest: Batch = [event for event in batch if not isinstance(event, Usage)]
                    if rest:
                        sent += text_bytes(rest)
                        yield rest
                yield [usage or self._upper_bound(call, sent)]
                await read_to_end(response)
        except (TimeoutError, HttpFailed) as error:
            self._remote.failed(error)

    async def embed(self, call: Embed) -> Embeddings:
        body = {"model": self._model, "input": call.texts, "encoding_format": "float"}
        try:
            async with self._remote.post("/embeddings", body, call.deadline) as response:
                return reply_embeddings(
                    await self._remote.read(response),
                    texts=len(call.texts),
                    prompt_tokens=self.count_tokens(call),
                )
        except (TimeoutError, HttpFailed) as error:
            self._remote.failed(error)

    async def _payloads(self, response: Connection) -> AsyncGenerator[str, None]:
        """What comes before `[DONE]`. A stream that ends without it was cut, and is an error."""
        async for payload in self._remote.events(response):
            if payload == DONE:
                return
            yield payload
        raise EngineFailed("the provider cut the stream before its end")
