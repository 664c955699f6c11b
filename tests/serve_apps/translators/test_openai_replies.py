"""Events in OpenAI's words."""

from __future__ import annotations

import json
from typing import Any

from cluster.messages import Delta, Finish, Message, Usage
from serve_apps.translators.openai_replies import (
    DONE,
    ChatStream,
    CompletionStream,
    ContextVersion,
    Label,
    assistant_turn,
    chat_answer,
    completion_answer,
    whole_tool_calls,
)

LABEL = Label("id-1", "m", 1_700_000_000)
USAGE = Usage(3, 2, 1)


def chunks(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(event[6:]) for event in stream.split(b"\n\n") if event and event != DONE.strip()]


def test_one_chunk_for_each_choice_of_a_batch() -> None:
    stream = ChatStream(LABEL, include_usage=False, hold_finish=False)
    out = chunks(stream.feed([Delta("a"), Delta("x", 1), Delta("b"), Delta("y", 1)]))
    assert [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in out] == [
        (0, {"role": "assistant", "content": "ab"}),
        (1, {"role": "assistant", "content": "xy"}),
    ]
    later = chunks(stream.feed([Delta("c"), Finish("length")]))
    assert [chunk["choices"][0]["delta"] for chunk in later] == [{"content": "c"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in later] == [None, "length"]
    assert stream.end(USAGE, None) == DONE


def test_an_empty_reply_still_has_a_role() -> None:
    stream = ChatStream(LABEL, include_usage=True, hold_finish=False)
    out = chunks(stream.feed([Finish("stop")]))
    assert out[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert out[1]["choices"][0]["finish_reason"] == "stop"
    assert stream.feed([USAGE]) == b""
    assert chunks(stream.end(USAGE, None))[0]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_a_held_finish_tells_the_context() -> None:
    stream = ChatStream(LABEL, include_usage=False, hold_finish=True)
    assert len(chunks(stream.feed([Delta("a"), Finish("stop"), USAGE]))) == 1
    (last,) = chunks(stream.end(USAGE, ContextVersion("c", 4)))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["context"] == {"id": "c", "version": 4}


def test_logprobs_are_joined() -> None:
    first, second = {"content": [{"token": "a"}], "refusal": None}, {"content": [{"token": "b"}]}
    events = [Delta("a", logprobs=first), Delta("b", logprobs=second), Finish("stop"), USAGE]
    answer = json.loads(chat_answer(LABEL, events))
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}
    assert first == {"content": [{"token": "a"}], "refusal": None}


def test_tool_calls_in_pieces() -> None:
    pieces: list[dict[str, Any]] = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    assert whole_tool_calls(pieces) == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    turn = assistant_turn([Delta(tool_calls=[piece]) for piece in pieces])
    assert turn == Message("assistant", None, tool_calls=whole_tool_calls(pieces))


def test_the_turn_to_remember() -> None:
    assert assistant_turn([Delta("a"), Delta("b"), Finish("stop"), USAGE]) == Message("assistant", "ab")
    assert assistant_turn([USAGE]) == Message("assistant", "")


def test_completions() -> None:
    events = [Delta("b", 1), Delta("a"), Finish("stop"), Finish("length", 1), USAGE]
    answer = json.loads(completion_answer(LABEL, events))
    assert [(c["text"], c["finish_reason"]) for c in answer["choices"]] == [("a", "stop"), ("b", "length")]
    stream = CompletionStream(LABEL, include_usage=True)
    assert [chunk["choices"][0]["text"] for chunk in chunks(stream.feed(events))] == ["b", "a"]
    assert chunks(stream.end(USAGE, None))[0]["choices"] == []
