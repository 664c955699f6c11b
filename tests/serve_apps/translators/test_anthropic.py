"""What Anthropic's bodies mean to a model, and what is refused of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.messages import Message, Sampling
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.anthropic import (
    chat_messages,
    chat_sampling,
    check,
    decode_count,
    decode_messages,
)

HELLO = {"role": "user", "content": "hello"}
WEATHER = {"name": "weather", "description": "of a city", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}


def meaning(**fields: Any) -> tuple[list[Message], Sampling]:
    """What a body says, with what every body has filled in."""
    raw = msgspec.json.encode({"model": "m", "max_tokens": 5, "messages": [HELLO], **fields})
    body = decode_messages(raw)
    check(body)
    return chat_messages(body), chat_sampling(body)


def text(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": each} for each in texts]


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({}, [Message("user", "hello")]),
        ({"system": "be kind"}, [Message("system", "be kind"), Message("user", "hello")]),
        (
            {"system": [{**text("be")[0], "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            [Message("system", "be"), Message("user", "hello")],
        ),
        ({"system": text("be", "kind")}, [Message("system", text("be", "kind")), Message("user", "hello")]),
        (
            {"messages": [{"role": "user", "content": text("one")}]},
            [Message("user", "one")],
        ),
        (
            {"messages": [HELLO, {"role": "system", "content": "be brief"}, HELLO]},
            [Message("user", "hello"), Message("system", "be brief"), Message("user", "hello")],
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            *text("what is"),
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                            },
                        ],
                    }
                ]
            },
            [
                Message(
                    "user",
                    [
                        *text("what is"),
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                    ],
                )
            ],
        ),
    ],
)
def test_messages(fields: dict[str, Any], messages: list[Message]) -> None:
    assert meaning(**fields)[0] == messages


def test_tools_that_were_used() -> None:
    """Each result is a message of its own, in its place; thoughts of other models are left out."""
    messages, _ = meaning(
        messages=[
            HELLO,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "I look.", "citations": None},
                    {**CALL, "caller": {"type": "direct"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": text("sunny")},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "is_error": True,
                        "content": "no such city",
                    },
                    {"type": "tool_result", "tool_use_id": "toolu_3"},
                    *text("and", "now?"),
                ],
            },
        ]
    )
    call = {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    assert messages[1:] == [
        Message("assistant", "I look.", tool_calls=[call]),
        Message("tool", "sunny", tool_call_id="toolu_1"),
        Message("tool", text("The tool failed:", "no such city"), tool_call_id="toolu_2"),
        Message("tool", "", tool_call_id="toolu_3"),
        Message("user", text("and", "now?")),
    ]


def test_a_turn_that_was_only_thought_is_left_out() -> None:
    thought = {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}
    assert meaning(messages=[HELLO, thought, HELLO])[0] == [Message("user", "hello")] * 2


def test_sampling() -> None:
    _, sampling = meaning(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        metadata={"user_id": "somebody"},
        service_tier="auto",
        thinking={"type": "disabled"},
    )
    assert sampling == Sampling(temperature=0.5, top_p=0.9, top_k=40, stop=["END"])
    assert meaning(top_k=0, stop_sequences=[], tools=[], metadata={})[1] == Sampling()


@pytest.mark.parametrize(
    ("choice", "meant", "parallel"),
    [
        (None, None, None),
        ({"type": "auto"}, "auto", None),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any", "disable_parallel_tool_use": False}, "required", True),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}, None),
        ({"type": "none"}, "none", None),
    ],
)
def test_tools(choice: dict[str, Any] | None, meant: Any, parallel: bool | None) -> None:
    _, sampling = meaning(tools=[{**WEATHER, "strict": True, "type": "custom"}], tool_choice=choice)
    function = {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object"},
        "strict": True,
    }
    assert sampling.tools == [{"type": "function", "function": function}]
    assert (sampling.tool_choice, sampling.parallel_tool_calls) == (meant, parallel)


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    _, sampling = meaning(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert sampling.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def user(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"temperature": 1.5}, "temperature", "<= 1"),
        ({"stop_sequence": ["a"]}, "stop_sequence", "'stop_sequences'"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "length >= 1"),
        ({"priority": 1}, "priority", "Unknown field"),
        ({"container": "x"}, "container", "Unknown field"),
        ({"messages": []}, "messages", "length >= 1"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].role",
            "'assistant', 'system', 'user'",
        ),
        ({"messages": user()}, "messages[0].content", "is empty"),
        (
            {"messages": user({"type": "document", "source": {}})},
            "messages[0].content[0].type",
            "'text', 'image', 'tool_use', 'tool_result'",
        ),
        (
            {"messages": user({**CALL})},
            "messages[0].content[0].type",
            "message of the user holds no 'tool_use' blocks, only text, image, tool_result",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "content": [CALL]}]},
            "messages[1].role",
            "prefill",
        ),
        (
            {"messages": user({"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/a.png"}})},
            "messages[0].content[0].source.url",
            "nothing is fetched",
        ),
        (
            {
                "messages": user(
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}
                        ],
                    }
                )
            },
            "messages[0].content[0].content[0].source.url",
            "nothing is fetched",
        ),
        (
            {
                "messages": user(
                    *text("a"),
                    {"type": "tool_result", "tool_use_id": "t", "content": "b"},
                    {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/a.png"}},
                )
            },
            "messages[0].content[2].source.url",
            "nothing is fetched",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**CALL, "input": deep(40)}]}, HELLO]},
            "messages[0].content[0].input",
            "nested deeper",
        ),
        ({"tools": [{**WEATHER, "input_schema": deep(40)}]}, "tools[0].input_schema", "nested deeper"),
        ({"tools": [{**WEATHER, "name": "a b"}]}, "tools[0].name", "match"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools[0].type",
            "It may be 'custom'.",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "needs 'tools'"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "wether"}},
            "tool_choice.name",
            "none of 'tools'",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking", "'disabled'"),
        ({"thinking": {"type": "adaptive"}}, "thinking", "'disabled'"),
        ({"output_config": {"effort": "low"}}, "output_config.effort", "leave it out"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": deep(40)}}},
            "output_config.format.schema",
            "nested deeper",
        ),
    ],
)
def test_refusals(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        meaning(**fields)
    assert caught.value.param == param
    assert says in caught.value.message


def test_a_count_has_no_sampling() -> None:
    body = decode_count(msgspec.json.encode({"model": "m", "messages": [HELLO], "tools": [WEATHER]}))
    assert body.tools is not None
    with pytest.raises(BadRequest) as caught:
        decode_count(msgspec.json.encode({"model": "m", "messages": [HELLO], "max_tokens": 5}))
    assert caught.value.param == "max_tokens"
