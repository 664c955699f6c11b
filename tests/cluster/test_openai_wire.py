from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded
from cluster.messages import Delta, Finish, Message, Sampling, Usage
from cluster.openai_wire import (
    reply_embeddings,
    reply_error,
    reply_events,
    request_body,
    sse_payloads,
)
from tests.cluster.calls import chat, generate

EVERYTHING = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=5,
    min_p=0.1,
    n=2,
    stop=["\n"],
    seed=1,
    presence_penalty=0.1,
    frequency_penalty=0.2,
    repetition_penalty=1.1,
    logit_bias={"1": 2.0},
    logprobs=True,
    top_logprobs=3,
    min_tokens=1,
    ignore_eos=True,
    tools=[{"type": "function", "function": {"name": "f"}}],
    tool_choice="auto",
    parallel_tool_calls=False,
    response_format={"type": "json_object"},
)
ALLOWED = set(Sampling.__struct_fields__)


def test_a_chat_carries_every_sampling_field_and_nothing_of_ours() -> None:
    call = chat("Hi", sampling=EVERYTHING, tenant="acme", priority=-1, max_tokens=9)
    body = request_body(call)
    assert set(body) == ALLOWED | {"model", "max_tokens", "messages"}
    assert {name: body[name] for name in ALLOWED} == msgspec.to_builtins(EVERYTHING)
    assert (body["model"], body["max_tokens"]) == ("m", 9)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]


def test_what_the_caller_did_not_say_is_not_sent() -> None:
    assert set(request_body(chat())) == {"model", "max_tokens", "messages"}


def test_a_stream_asks_for_its_usage() -> None:
    body = request_body(chat(stream=True))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("sampling", "logprobs"),
    [
        (Sampling(), None),
        (Sampling(logprobs=True), 0),
        (Sampling(logprobs=True, top_logprobs=3), 3),
        (Sampling(top_logprobs=3), None),
    ],
)
def test_a_text_completion_asks_for_logprobs_by_number(sampling: Sampling, logprobs: int | None) -> None:
    body = request_body(generate(prompt="Once", sampling=sampling))
    assert body["prompt"] == "Once"
    assert body.get("logprobs") == logprobs
    assert not {"messages", "top_logprobs"} & set(body)


def test_tool_turns_keep_their_ids() -> None:
    tool_calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turns = [Message("assistant", None, tool_calls=tool_calls), Message("tool", "42", tool_call_id="c")]
    assert request_body(generate(messages=turns))["messages"] == [
        {"role": "assistant", "tool_calls": tool_calls},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
    ]


LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "top_logprobs": []}]}
TOOL_CALLS = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]

REPLIES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "chunk": (
        {"id": "x", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "Hi"}}]},
        [Delta("Hi", 1)],
    ),
    "first chunk, with the role alone": ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, []),
    "last chunk, with text": (
        {"choices": [{"delta": {"content": "!"}, "finish_reason": "length"}]},
        [Delta("!"), Finish("length")],
    ),
    "usage alone": (
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        },
        [Usage(5, 2, 4)],
    ),
    "usage with nulls": (
        {
            "choices": [],
            "usage": {"prompt_tokens": 5, "completion_tokens": None, "prompt_tokens_details": None},
        },
        [Usage(5)],
    ),
    "whole chat of two choices": (
        {
            "choices": [
                {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"},
                {"index": 1, "message": {"content": "B"}, "finish_reason": "content_filter"},
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        },
        [Delta("A"), Delta("B", 1), Finish("stop"), Finish("content_filter", 1), Usage(1, 2)],
    ),
    "stop string": (
        {"choices": [{"message": {"content": "A"}, "finish_reason": "stop", "stop_reason": "END"}]},
        [Delta("A"), Finish("stop", matched="END")],
    ),
    "stop token": (
        {"choices": [{"message": {"content": "A"}, "finish_reason": "stop", "stop_reason": 151645}]},
        [Delta("A"), Finish("stop")],
    ),
    "whole text completion": (
        {"choices": [{"index": 0, "text": " upon", "finish_reason": "stop"}]},
        [Delta(" upon"), Finish("stop")],
    ),
    "tool-call delta": (
        {"choices": [{"delta": {"tool_calls": TOOL_CALLS}}]},
        [Delta(tool_calls=TOOL_CALLS)],
    ),
    "end of tool calls": (
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        [Finish("tool_calls")],
    ),
    "end of a function call": (
        {"choices": [{"delta": {}, "finish_reason": "function_call"}]},
        [Finish("tool_calls")],
    ),
    "logprobs": (
        {"choices": [{"delta": {"content": "Hi"}, "logprobs": LOGPROBS}]},
        [Delta("Hi", logprobs=LOGPROBS)],
    ),
    "fields we do not know": (
        {"system_fingerprint": "x", "choices": [{"delta": {"reasoning": "hm", "content": "Hi"}}]},
        [Delta("Hi")],
    ),
}


@pytest.mark.parametrize(("reply", "events"), REPLIES.values(), ids=REPLIES)
def test_replies_become_events(reply: dict[str, Any], events: list[Any]) -> None:
    assert reply_events(json.dumps(reply)) == events
    assert reply_events(json.dumps(reply).encode()) == events
    assert reply_events(reply) == events


@pytest.mark.parametrize(
    "reply", ["", "[]", "<html>", '{"choices": 1}', '{"choices": [{"index": "a"}]}', {"choices": None}]
)
def test_a_reply_that_is_not_openais_is_the_providers_failure(reply: Any) -> None:
    with pytest.raises(EngineFailed, match="not OpenAI's"):
        reply_events(reply)


def test_an_end_that_nobody_knows_is_a_failure() -> None:
    with pytest.raises(EngineFailed, match="'exploded'"):
        reply_events({"choices": [{"delta": {}, "finish_reason": "exploded"}]})


SECRET = "sk-live-1234 of org-acme"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_concerns_the_call_is_told_to_the_caller(status: int) -> None:
    error = {"message": "n is too large", "param": "n", "code": status}
    for raised in (
        _raised_by({"error": error}),
        reply_error(status, json.dumps({"error": error}).encode()),
    ):
        assert type(raised) is InvalidCall
        assert (raised.message, raised.param) == ("n is too large", "n")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, EngineFailed),
        (403, EngineFailed),
        (404, EngineFailed),
        (429, Overloaded),
        (500, EngineFailed),
        (503, ModelUnavailable),
        (302, EngineFailed),
    ],
)
def test_nothing_else_a_provider_says_is_repeated(status: int, kind: type[ClusterError]) -> None:
    error = {"message": f"refused {SECRET}", "param": SECRET, "code": status}
    for raised in (
        _raised_by({"error": error}),
        reply_error(status, json.dumps({"error": error}).encode()),
    ):
        assert type(raised) is kind
        assert SECRET not in raised.message + str(raised.param)


def test_a_named_code_in_a_stream_is_the_providers_failure() -> None:
    raised = _raised_by({"error": {"message": SECRET, "type": "server_error", "code": "rate_limit_exceeded"}})
    assert type(raised) is EngineFailed
    assert SECRET not in str(raised)


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_provider_says_when_to_come_back(status: int) -> None:
    assert reply_error(status, b"", retry_after_s=7.0).retry_after_s == 7.0
    assert reply_error(status, b"").retry_after_s == 1.0


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "flat"}', b"{}"])
def test_a_refusal_that_is_not_openais_names_its_status(body: bytes) -> None:
    refused = reply_error(400, body)
    assert type(refused) is InvalidCall
    assert "400" in refused.message


def _raised_by(reply: dict[str, Any]) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        reply_events(reply)
    return caught.value


def _vectors(*vectors: tuple[int, list[float]], usage: dict[str, int] | None = None) -> bytes:
    data = [{"index": index, "embedding": vector} for index, vector in vectors]
    return json.dumps({"data": data} | ({"usage": usage} if usage else {})).encode()


def test_vectors_come_in_the_order_of_their_texts_and_normalised() -> None:
    reply = _vectors((1, [0.0, 2.0]), (0, [3.0, 4.0]), usage={"prompt_tokens": 5})
    embeddings = reply_embeddings(reply, texts=2, prompt_tokens=9)
    assert embeddings.vectors == [[0.6, 0.8], [0.0, 1.0]]
    assert embeddings.usage == Usage(5)


def test_a_vector_of_zeros_stays_one() -> None:
    assert reply_embeddings(_vectors((0, [0.0, 0.0])), texts=1, prompt_tokens=0).vectors == [[0.0, 0.0]]


def test_large_vectors_do_not_overflow() -> None:
    [vector] = reply_embeddings(_vectors((0, [1e200, 1e200])), texts=1, prompt_tokens=0).vectors
    assert math.hypot(*vector) == pytest.approx(1)


def test_vectors_without_a_usage_are_charged_what_was_counted() -> None:
    assert reply_embeddings(_vectors((0, [1.0])), texts=1, prompt_tokens=9).usage == Usage(9)


@pytest.mark.parametrize(
    "reply",
    [
        b"{}",
        b"no",
        _vectors((0, [1.0])),
        _vectors((0, [1.0]), (0, [1.0])),
        _vectors((0, [1.0]), (1, [1.0]), (2, [1.0])),
    ],
)
def test_vectors_that_do_not_match_the_texts_are_a_failure(reply: bytes) -> None:
    with pytest.raises(EngineFailed):
        reply_embeddings(reply, texts=2, prompt_tokens=0)


@pytest.mark.parametrize(
    ("text", "payloads"),
    [
        ('data: {"a": 1}\n\n', ['{"a": 1}']),
        ("data:1\r\n\r\ndata: 2\r\rdata: [DONE]\n\n", ["1", "2"]),
        (": comment\nevent: x\nid: 1\ndata: 1\n\n", ["1"]),
        ("data: [DONE]\n\n", []),
        ("", []),
        # Line ends to str.splitlines, but neither to JSON nor to event streams.
        ('data: "a\u2028b\x85c\x0bd"\n\n', ['"a\u2028b\x85c\x0bd"']),
    ],
)
def test_payloads_of_events(text: str, payloads: list[str]) -> None:
    assert sse_payloads(text) == payloads
