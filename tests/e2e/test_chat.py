"""Chat, completions and embeddings with the official SDK."""

from __future__ import annotations

import httpx
import openai
import pytest

from serve_apps.gateway.limits import Limits
from tests.e2e.system import RunningSystem

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def test_the_start_ends_with_a_real_answer_and_commands_to_paste(system: RunningSystem) -> None:
    text = "".join(system.output)
    assert "Paris" in text
    assert text.count("curl ") == 3


def test_models_are_listed(system: RunningSystem) -> None:
    names = {model.id for model in system.client().models.list()}
    graphs = {f"graph/{path.stem}" for path in system.settings.graphs}
    assert len(graphs) == 9
    assert names == {"smollm2", "minilm"} | graphs


def test_every_answer_says_its_id_once(system: RunningSystem) -> None:
    answers = [httpx.get(f"{system.url}{path}", timeout=60) for path in ("/healthz", "/v1/models")]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert [len(answer.headers.get_list("x-request-id")) for answer in answers] == [1, 1]


def test_chat_knows_the_capital_of_france(system: RunningSystem) -> None:
    reply = system.client().chat.completions.create(
        model="smollm2", messages=FRANCE, temperature=0, max_tokens=32
    )
    assert "Paris" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_streamed_chat_says_the_same_in_pieces(system: RunningSystem) -> None:
    client = system.client()
    whole = client.chat.completions.create(model="smollm2", messages=FRANCE, temperature=0, max_tokens=32)
    pieces, usage = [], None
    for chunk in client.chat.completions.create(
        model="smollm2",
        messages=FRANCE,
        temperature=0,
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.choices[0].message.content
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_completions(system: RunningSystem) -> None:
    reply = system.client().completions.create(
        model="smollm2", prompt="One, two, three,", temperature=0, max_tokens=8
    )
    assert reply.choices[0].text
    assert reply.usage is not None
    assert 0 < reply.usage.completion_tokens <= 8


def test_embeddings_put_related_texts_near_each_other(system: RunningSystem) -> None:
    texts = ["a cat sat on the mat", "a cat lay on the mat", "quarterly revenue grew"]
    data = system.client().embeddings.create(model="minilm", input=texts).data
    assert len(data[0].embedding) == 384
    assert _dot(data, 1) > _dot(data, 2) + 0.2


def _dot(data: list[openai.types.Embedding], other: int) -> float:
    return sum(a * b for a, b in zip(data[0].embedding, data[other].embedding, strict=True))


def test_an_unknown_key_is_401(system: RunningSystem) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        system.client("cgh_nobody_nothing").chat.completions.create(model="smollm2", messages=FRANCE)
    assert refused.value.code == "invalid_api_key"


def test_a_key_without_the_model_is_403_and_an_unknown_model_404(system: RunningSystem) -> None:
    key, _ = system.key(models=["minilm"])
    with pytest.raises(openai.PermissionDeniedError):
        system.client(key).chat.completions.create(model="smollm2", messages=FRANCE)
    with pytest.raises(openai.NotFoundError, match="smollm2"):
        system.client().chat.completions.create(model="smolm2", messages=FRANCE)


def test_requests_beyond_the_limit_are_429_with_headers(system: RunningSystem) -> None:
    key, _ = system.key(limits=Limits(requests_per_minute=2))
    client = system.client(key)
    for _ in range(2):
        client.chat.completions.create(model="smollm2", messages=FRANCE, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="smollm2", messages=FRANCE, max_tokens=1)
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 65
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"


def test_a_conversation_continues_under_its_context_id(system: RunningSystem) -> None:
    client, context = system.client(), "france-tour"
    first = client.chat.completions.with_raw_response.create(
        model="smollm2", messages=FRANCE, temperature=0, max_tokens=24, extra_body={"contextId": context}
    )
    second = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "And what did I ask you before?"}],
        max_tokens=24,
        extra_body={"contextId": context},
    )
    assert first.headers["x-context-id"] == context
    first_usage, second_usage = first.parse().usage, second.usage
    assert first_usage is not None
    assert second_usage is not None
    # The second prompt holds the first question and answer as well.
    assert second_usage.prompt_tokens > first_usage.total_tokens
    kept = client.get(f"/contexts/{context}", cast_to=dict[str, object])
    roles = [turn["role"] for turn in kept["sessionHistory"]]  # type: ignore[attr-defined]
    assert roles == ["user", "assistant", "user", "assistant"]
