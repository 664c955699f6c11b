"""The other peer: `ray.serve.llm`'s own OpenAI ingress, over a server that answers at once.

Imports vLLM's request models wherever it runs, as that ingress does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from ray import serve
from ray.llm._internal.serve.core.configs.openai_api_models import ModelCard
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.llm.openai_api_models import ChatCompletionRequest, ChatCompletionResponse

from benchmarks.mock_upstream import DONE, chunks, completion

MODEL = "fake"


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
class FakeLLMServer:
    """What the ingress expects behind its handle: whole responses, or texts of server-sent events."""

    async def chat(
        self, request: ChatCompletionRequest, _raw_request_info: object
    ) -> AsyncIterator[ChatCompletionResponse | str]:
        if not request.stream:
            yield ChatCompletionResponse.model_validate(completion(MODEL))
            return
        for chunk in chunks(MODEL):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield DONE.decode()


def build(_arguments: dict[str, str]) -> serve.Application:
    """The ingress with its defaults but for the CPUs it books."""
    card = ModelCard(id=MODEL, object="model", owned_by="benchmarks", permission=[], metadata={})
    ingress = serve.deployment(
        make_fastapi_ingress(OpenAiIngress),
        name="OpenAiIngress",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=1000,
    )
    server = FakeLLMServer.bind()  # type: ignore[attr-defined]
    return ingress.bind(llm_deployments={MODEL: server}, model_cards={MODEL: card})
