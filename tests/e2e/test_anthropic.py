"""Anthropic's official SDK, tasks and tokens against the whole system."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, RunningSystem

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(system: RunningSystem) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=system.url, api_key=system.demo_key, max_retries=0, timeout=ANSWER_TIMEOUT_S
    )


def ask(client: anthropic.Anthropic, **fields: Any) -> anthropic.types.Message:
    """An answer that is as good as certain: the model takes the likeliest token."""
    body = {
        "model": "smollm2",
        "max_tokens": 32,
        "messages": FRANCE,
        "extra_body": {"temperature": 0},
        **fields,
    }
    message: anthropic.types.Message = client.messages.create(**body)
    return message


def test_a_message_and_its_stream_say_the_same(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    assert whole.content[0].type == "text"
    assert "Paris" in whole.content[0].text
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(
        model="smollm2", max_tokens=32, messages=FRANCE, extra_body={"temperature": 0}
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == whole.content[0].text
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_a_count_is_what_the_engine_charges(system: RunningSystem, client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="smollm2", system="Answer in one word.", messages=FRANCE)
    usage = ask(client, system="Answer in one word.").usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    tokens = client.post(
        "/v1/tokenize", body={"model": "smollm2", "messages": FRANCE}, cast_to=dict[str, Any]
    )
    assert tokens["count"] == client.messages.count_tokens(model="smollm2", messages=FRANCE).input_tokens
    if system.kind == "quickstart":
        ids = {"model": "smollm2", "tokens": tokens["tokens"]}
        back = client.post("/v1/detokenize", body=ids, cast_to=dict[str, Any])
        assert "What is the capital of France?" in back["prompt"]


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    stopped = ask(client, stop_sequences=["Rome", " Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " Paris")
    assert "Paris" not in stopped.content[0].text  # type: ignore[union-attr]


def test_structured_output(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    # The scripted engine has a reply for France; this question has none.
    answer = ask(
        client,
        messages=[{"role": "user", "content": "Name a city."}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(answer.content[0].text)["city"] in {"Paris", "Rome"}  # type: ignore[union-attr]


def test_models_and_errors(client: anthropic.Anthropic) -> None:
    names = {model.id for model in client.models.list(limit=1000)}
    assert {"smollm2", "minilm", "graph/support-rag"} <= names
    with pytest.raises(anthropic.NotFoundError, match="smollm2"):
        ask(client, model="smolm2")
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        ask(client, max_tokens=100_000)


def test_a_graph(client: anthropic.Anthropic) -> None:
    answer = ask(client, model="graph/sentiment", extra_body={})
    assert answer.content[0].text in {"positive", "negative", "neutral"}  # type: ignore[union-attr]


def test_tasks(system: RunningSystem, client: anthropic.Anthropic) -> None:
    tasks = client.get("/ai", cast_to=dict[str, Any])["data"]
    assert {task["task"] for task in tasks} == {"sentiment-analysis", "translation"}
    body = {"text": "I love it, it is the best, thank you!"}
    felt = client.post("/ai/sentiment-analysis", body=body, cast_to=dict[str, Any])
    assert felt["outputs"]["label"] in {"positive", "negative", "neutral"}
    if system.kind == "quickstart":
        assert felt["outputs"]["label"] == "positive"
    translated = client.post("/ai/translation", body={"text": "Good morning."}, cast_to=dict[str, Any])
    assert translated["outputs"]["text"]
    assert translated["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_weather"}, {"type": "any"}])
@pytest.mark.parametrize("system", ["quickstart"], indirect=True)
def test_a_forced_tool_is_called_with_arguments_that_fit(
    system: RunningSystem, client: anthropic.Anthropic, choice: Any
) -> None:
    tool: Any = {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    message = ask(client, max_tokens=96, tools=[tool], tool_choice=choice)
    (called,) = [block for block in message.content if block.type == "tool_use"]
    assert called.name == "get_weather"
    assert isinstance(called.input, dict)
    assert isinstance(called.input["city"], str)
    assert message.stop_reason == "tool_use"
