"""The peer: what one writes with FastAPI and Ray Serve alone, one handle hop to a model that costs nothing.

No keys, no quotas, no routing, no deadline: the floor that the framework itself sets under the same HAProxy
and throughput mode. Its answers are those of the mock upstream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle

from benchmarks.mock_upstream import DONE, chunks, completion

web = FastAPI()


class ChatMessage(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    model: str
    messages: list[ChatMessage]
    max_tokens: int = 20
    stream: bool = False


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
class PeerModel:
    """Answers at once."""

    async def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        return completion(request["model"])

    async def stream(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks(request["model"]):
            yield chunk


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
@serve.ingress(web)
class PeerGateway:
    """FastAPI in front, a handle behind."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model
        self._stream = model.options(method_name="stream", stream=True)

    @web.post("/v1/chat/completions", response_model=None)
    async def chat(self, request: ChatRequest) -> Response | dict[str, Any]:
        body = request.model_dump()
        if request.stream:
            return StreamingResponse(self._relay(body), media_type="text/event-stream")
        return await self._model.complete.remote(body)  # type: ignore[no-any-return]

    async def _relay(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async for chunk in self._stream.remote(body):
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        yield DONE


def build(_arguments: dict[str, str]) -> serve.Application:
    """The peer as a Serve application."""
    return PeerGateway.bind(PeerModel.bind())  # type: ignore[attr-defined]
