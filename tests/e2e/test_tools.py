"""Tools on the real engine, with both SDKs: called whole and streamed, and answered."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.system import ANSWER_TIMEOUT_S, RunningSystem

pytestmark = pytest.mark.parametrize("system", ["quickstart"], indirect=True)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: Any = {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FUNCTION}
FORCED: Any = {"type": "function", "function": {"name": "get_weather"}}
ANTHROPIC_TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": SCHEMA,
}
ASKED: Any = {"role": "user", "content": "What is the weather in Oslo?"}
RESULT = "It rains in Oslo, and it is seven degrees Celsius warm."


@pytest.fixture
def sdk(system: RunningSystem) -> openai.OpenAI:
    return system.client()


@pytest.fixture
def other_sdk(system: RunningSystem) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=system.url, api_key=system.demo_key, max_retries=0, timeout=ANSWER_TIMEOUT_S
    )


@pytest.mark.parametrize(("choice", "streamed"), [(FORCED, False), (FORCED, True), ("required", True)])
def test_a_tool_is_called_and_its_result_read(sdk: openai.OpenAI, choice: Any, streamed: bool) -> None:
    given: Any = {"model": "smollm2", "tools": [TOOL], "temperature": 0, "max_tokens": 96}
    if streamed:
        with sdk.chat.completions.stream(messages=[ASKED], tool_choice=choice, **given) as events:
            completion: Any = events.get_final_completion()
    else:
        completion = sdk.chat.completions.create(messages=[ASKED], tool_choice=choice, **given)
    message = completion.choices[0].message
    (called,) = message.tool_calls
    assert called.function.name == "get_weather"
    assert isinstance(json.loads(called.function.arguments)["city"], str)
    assert called.id
    made = {
        "id": called.id,
        "type": "function",
        "function": {"name": called.function.name, "arguments": called.function.arguments},
    }
    turns: list[Any] = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": called.id, "content": RESULT},
    ]
    given["max_tokens"] = 12
    answer = sdk.chat.completions.create(messages=turns, **given)
    without = sdk.chat.completions.create(messages=[*turns[:2], {**turns[2], "content": ""}], **given)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls
    assert answer.usage is not None
    assert without.usage is not None
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens + 5  # the model reads what it said


@pytest.mark.parametrize(
    ("choice", "streamed"), [({"type": "tool", "name": "get_weather"}, True), ({"type": "any"}, False)]
)
def test_the_same_in_anthropics_words(other_sdk: anthropic.Anthropic, choice: Any, streamed: bool) -> None:
    given: Any = {"model": "smollm2", "tools": [ANTHROPIC_TOOL], "max_tokens": 96}
    given["extra_body"] = {"temperature": 0}
    if streamed:
        with other_sdk.messages.stream(messages=[ASKED], tool_choice=choice, **given) as events:
            message = events.get_final_message()
    else:
        message = other_sdk.messages.create(messages=[ASKED], tool_choice=choice, **given)
    assert message.stop_reason == "tool_use"
    (called,) = [block for block in message.content if block.type == "tool_use"]
    assert called.name == "get_weather"
    assert isinstance(called.input["city"], str)  # type: ignore[index]

    def ask(result: str) -> anthropic.types.Message:
        said = {"type": "tool_use", "id": called.id, "name": called.name, "input": called.input}
        back = {"type": "tool_result", "tool_use_id": called.id, "content": result}
        turns: list[Any] = [
            ASKED,
            {"role": "assistant", "content": [said]},
            {"role": "user", "content": [back]},
        ]
        given["max_tokens"] = 12
        answer: anthropic.types.Message = other_sdk.messages.create(messages=turns, **given)
        return answer

    answer, without = ask(RESULT), ask("")
    assert answer.content
    assert read_by(answer) > read_by(without) + 5


def read_by(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
