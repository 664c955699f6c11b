from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from cluster.anthropic_wire import REFUSED, reply_error, reply_events, request_body
from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded
from cluster.messages import Delta, Finish, Message, Sampling, Usage
from serve_apps.translators import anthropic as other_side
from tests.cluster.calls import chat, generate

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
PNG = "data:image/png;base64,aGk="


def body_of(*messages: Message, **sampling: Any) -> dict[str, Any]:
    return request_body(generate(messages=list(messages), sampling=Sampling(**sampling)))


def call_of(call_id: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}


CONVERSATION = [
    Message("system", "Be brief."),
    Message("developer", [{"type": "text", "text": "And kind."}]),
    Message("user", [{"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": PNG}}]),
    Message("assistant", "I look.", tool_calls=[call_of("a", '{"city": "Oslo"}'), call_of("b", "")]),
    Message("tool", "Rain.", tool_call_id="a"),
    Message("tool", [{"type": "text", "text": "Sun."}], tool_call_id="b"),
    Message("tool", "", tool_call_id="c"),
    Message("user", "And now?"),
    Message("user", "Say."),
]


def test_a_conversation_with_tools_has_its_results_in_one_turn() -> None:
    body = body_of(*CONVERSATION)
    assert body["system"] == "Be brief.\n\nAnd kind."
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "Rain."}]},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "Sun."}]},
                {"type": "tool_result", "tool_use_id": "c"},
                {"type": "text", "text": "And now?"},
                {"type": "text", "text": "Say."},
            ],
        },
    ]


def test_bodies_are_what_the_sdk_and_the_other_side_take() -> None:
    held = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}
    body = body_of(
        *CONVERSATION,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=["END"],
        tools=[TOOL],
        tool_choice="auto",
        parallel_tool_calls=False,
        response_format=held,
    )
    body["model"] = "claude"
    TypeAdapter(MessageCreateParamsNonStreaming).validate_python(body)
    read = other_side.decode_messages(msgspec.json.encode(body))
    sampling = other_side.chat_sampling(read)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.stop) == (0.5, 0.9, 5, ["END"])
    assert (sampling.tools, sampling.tool_choice, sampling.parallel_tool_calls) == ([TOOL], "auto", False)
    assert sampling.response_format is not None
    assert sampling.response_format["json_schema"]["schema"] == SCHEMA
    told = other_side.chat_messages(read)
    assert [message.role for message in told] == ["system", "user", "assistant", *["tool"] * 3, "user"]


@pytest.mark.parametrize(
    ("sampling", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
            {"type": "tool", "name": "look"},
        ),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_tools(sampling: dict[str, Any], choice: Any) -> None:
    body = body_of(Message("user", "Hi"), tools=[TOOL], **sampling)
    assert body["tools"] == [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}]
    assert body.get("tool_choice") == choice


def test_what_says_nothing_is_left_out() -> None:
    assert request_body(chat("Hi", max_tokens=5)) == {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert request_body(chat("Hi", stream=True))["stream"] is True
    harmless = {"presence_penalty": 0.0, "frequency_penalty": 0, "repetition_penalty": 1.0, "min_tokens": 0}
    body = body_of(Message("user", "Hi"), response_format={"type": "text"}, **harmless)
    assert set(body) == {"max_tokens", "messages"}


UNSAYABLE: dict[str, Any] = {
    "n": 2,
    "min_p": 0.1,
    "seed": 1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1.0},
    "logprobs": True,
    "top_logprobs": 2,
    "min_tokens": 5,
    "ignore_eos": True,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_this_api_has_no_word_for_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidCall, match=f"does not know '{name}'") as caught:
        body_of(Message("user", "Hi"), **{name: UNSAYABLE[name]})
    assert caught.value.param == name


def test_every_field_of_a_call_is_said_or_refused() -> None:
    said = {"temperature", "top_p", "top_k", "stop", "tools", "tool_choice", "parallel_tool_calls"}
    assert {*REFUSED} | said | {"response_format"} == set(Sampling.__struct_fields__)


@pytest.mark.parametrize(
    ("call", "param"),
    [
        (generate(prompt="Once"), "prompt"),
        (
            generate(
                messages=[Message("user", "Hi")], sampling=Sampling(response_format={"type": "json_object"})
            ),
            "response_format",
        ),
        (generate(messages=[Message("user", [{"type": "input_audio"}])]), "messages[0].content[0]"),
        (
            generate(
                messages=[
                    Message("user", [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}])
                ]
            ),
            "messages[0].content[0].image_url.url",
        ),
        (
            generate(messages=[Message("assistant", None, tool_calls=[call_of("a", "[1]")])]),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_calls_that_cannot_be_put_are_the_callers_mistake(call: Any, param: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        request_body(call)
    assert caught.value.param == param


def reply(**fields: Any) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2},
    } | fields
    SdkMessage.model_validate(message)
    return json.dumps(message).encode()


def test_a_whole_reply() -> None:
    assert reply_events(reply()) == [Delta("Hi."), Finish("stop"), Usage(5, 2)]


def test_calls_of_tools_in_a_whole_reply() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "b", "name": "look", "input": {}},
    ]
    events = reply_events(reply(content=content, stop_reason="tool_use"))
    assert events == [
        Delta("I look."),
        Delta(
            tool_calls=[{"index": 0, **call_of("a", '{"city":"Oslo"}')}, {"index": 1, **call_of("b", "{}")}]
        ),
        Finish("tool_calls"),
        Usage(5, 2),
    ]


def test_cached_tokens_are_part_of_the_prompt() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 2,
    }
    assert reply_events(reply(usage=usage))[-1] == Usage(125, 2, cached_tokens=100)


@pytest.mark.parametrize(
    ("reason", "matched", "finish"),
    [
        ("end_turn", None, Finish("stop")),
        ("stop_sequence", "END", Finish("stop", matched="END")),
        ("max_tokens", None, Finish("length")),
        ("tool_use", None, Finish("tool_calls")),
        ("refusal", None, Finish("content_filter")),
        ("model_context_window_exceeded", None, Finish("length")),
    ],
)
def test_reasons(reason: str, matched: str | None, finish: Finish) -> None:
    body = json.loads(reply()) | {"stop_reason": reason, "stop_sequence": matched}
    assert reply_events(json.dumps(body).encode())[1] == finish


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b'{"type": "ping"}',
        b'{"type": "message", "content": 3}',
        b'{"type": "message", "stop_reason": "bored"}',
    ],
)
def test_a_reply_that_is_not_anthropics_is_the_providers_failure(body: bytes) -> None:
    with pytest.raises(EngineFailed):
        reply_events(body)


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, InvalidCall, True),
        (413, InvalidCall, True),
        (401, EngineFailed, False),
        (403, EngineFailed, False),
        (404, EngineFailed, False),
        (302, EngineFailed, False),
        (429, Overloaded, False),
        (500, EngineFailed, False),
        (503, ModelUnavailable, False),
        (529, ModelUnavailable, False),
    ],
)
def test_only_the_callers_mistakes_are_told_as_the_provider_told_them(
    status: int, kind: type[ClusterError], told: bool
) -> None:
    stated = {"type": "error", "error": {"type": "some_error", "message": "said sk-secret"}}
    error = reply_error(status, json.dumps(stated).encode(), 7.0)
    assert type(error) is kind
    assert ("said" in error.message) is told
    if kind in (Overloaded, ModelUnavailable):
        assert (error.retry_after_s, reply_error(status, b"").retry_after_s) == (7.0, 1.0)
    assert type(reply_error(status, b"<html>")) is kind
