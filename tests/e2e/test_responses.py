"""OpenAI's Responses with the official SDK, against the whole system."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.e2e.system import RunningSystem

FRANCE = "What is the capital of France?"
GREEDY: dict[str, Any] = {"model": "smollm2", "temperature": 0, "max_output_tokens": 32}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture
def client(system: RunningSystem) -> openai.OpenAI:
    return system.client()


def test_an_answer_and_its_stream_say_the_same(client: openai.OpenAI) -> None:
    whole = client.responses.create(input=FRANCE, **GREEDY)
    assert whole.status == "completed"
    assert "Paris" in whole.output_text
    with client.responses.stream(input=FRANCE, **GREEDY) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(pieces) > 1
    assert "".join(pieces) == final.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.total_tokens == whole.usage.total_tokens


def test_a_conversation_goes_on_from_what_was_stored(client: openai.OpenAI) -> None:
    first = client.responses.create(input=FRANCE, **GREEDY)
    second = client.responses.create(input="Say it again.", previous_response_id=first.id, **GREEDY)
    assert second.previous_response_id == first.id
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens - 2
    kept = client.responses.retrieve(second.id)
    assert (kept.id, kept.output_text) == (second.id, second.output_text)
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.role for item in items if item.type == "message"][-1] == "user"
    assert items[-1].content[0].text == "Say it again."  # type: ignore[union-attr]


def test_what_is_deleted_is_gone(client: openai.OpenAI) -> None:
    kept = client.responses.create(input=FRANCE, **GREEDY)
    client.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)
    with pytest.raises(openai.OpenAIError):
        client.responses.create(input="And?", previous_response_id=kept.id, **GREEDY)
    unkept = client.responses.create(input=FRANCE, store=False, **GREEDY)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


def test_what_others_stored_is_not_there(system: RunningSystem, client: openai.OpenAI) -> None:
    kept = client.responses.create(input=FRANCE, **GREEDY)
    token, _ = system.key()
    with pytest.raises(openai.NotFoundError):
        system.client(token).responses.retrieve(kept.id)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_is_held_to_a_schema(client: openai.OpenAI, streamed: bool) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
    given: Any = {"input": "Name a city.", "text": form, **GREEDY}
    if streamed:
        with client.responses.stream(**given) as stream:
            for _ in stream:
                pass
            answer = stream.get_final_response()
    else:
        answer = client.responses.create(**given)
    assert json.loads(answer.output_text)["city"] in {"Paris", "Rome"}
