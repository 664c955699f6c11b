"""OpenAI's bodies: what they may say, and what becomes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.messages import Message, Sampling
from serve_apps.gateway.errors import BadRequest
from serve_apps.translators import openai as bodies

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> bodies.ChatBody:
    body = bodies.decode_chat(msgspec.json.encode({"model": "m", "messages": [USER], **fields}))
    bodies.check_chat(body)
    return body


def completion(**fields: Any) -> list[str]:
    body = bodies.decode_completion(msgspec.json.encode({"model": "m", "prompt": "once", **fields}))
    return bodies.check_completion(body)


def embedding(**fields: Any) -> list[str]:
    body = bodies.decode_embedding(msgspec.json.encode({"model": "m", "input": "text", **fields}))
    return bodies.embedding_texts(body)


def test_every_sampling_field_arrives() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    body = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        n=2,
        stop="END",
        seed=7,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.1,
        logit_bias={"42": -100},
        logprobs=True,
        top_logprobs=3,
        min_tokens=1,
        ignore_eos=True,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format=schema,
    )
    assert bodies.chat_sampling(body) == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        n=2,
        stop=["END"],
        seed=7,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.1,
        logit_bias={"42": -100.0},
        logprobs=True,
        top_logprobs=3,
        min_tokens=1,
        ignore_eos=True,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format=schema,
    )


def test_nulls_are_as_if_absent() -> None:
    optional = [
        name for name in bodies.ChatBody.__struct_encode_fields__ if name not in ("model", "messages")
    ]
    assert bodies.chat_sampling(chat(**dict.fromkeys(optional))) == Sampling()


def test_messages_as_clients_send_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    body = chat(
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": parts, "name": "ada"},
            {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ]
    )
    assert bodies.chat_messages(body) == [
        Message("developer", "be kind"),
        Message("user", parts, "ada"),
        Message("assistant", tool_calls=[call]),
        Message("tool", "42", tool_call_id="c1"),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"metadata": {"k": "v" * 600}}, "metadata"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_fields_out_of_bounds(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        (
            {
                "role": "user",
                "content": "x",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
            },
            "messages[0].tool_calls",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}],
            },
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_messages_that_make_no_sense(message: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        bodies.chat_messages(chat(messages=[message]))
    assert caught.value.param == param


def test_schemas_are_bounded() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"properties": deep}
    with pytest.raises(BadRequest, match="nested deeper"):
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": deep}}])
    with pytest.raises(BadRequest, match="nested deeper"):
        chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": deep}})


def test_completion_prompts() -> None:
    assert completion() == completion(prompt=["once"]) == ["once"]
    assert completion(prompt=["a", "b"]) == ["a", "b"]
    for bad in ("", [], ["a", ""], [1, 2], [[1]], ["a"] * 33):
        with pytest.raises(BadRequest) as caught:
            completion(prompt=bad)
        assert caught.value.param == "prompt"


@pytest.mark.parametrize(("field", "value"), [("echo", True), ("suffix", "x"), ("best_of", 3)])
def test_what_completions_cannot(field: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        completion(**{field: value})
    assert caught.value.param == field


def test_completion_logprobs_are_a_count() -> None:
    body = bodies.decode_completion(b'{"model": "m", "prompt": "x", "logprobs": 0}')
    sampling = bodies.completion_sampling(body)
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 0)


def test_embedding_inputs() -> None:
    assert embedding() == ["text"]
    assert embedding(input=["a", "b"]) == ["a", "b"]
    for bad in ("", [""], [1, 2], [[1]], []):
        with pytest.raises(BadRequest) as caught:
            embedding(input=bad)
        assert caught.value.param == "input"
    with pytest.raises(BadRequest) as caught:
        embedding(dimensions=64)
    assert caught.value.param == "dimensions"
