from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from cluster.anthropic_stream import MessageReader
from cluster.errors import ClusterError, EngineFailed, InvalidCall, ModelUnavailable, Overloaded
from cluster.interface import Batch
from cluster.messages import Delta, Finish, Usage

START = {
    "type": "message_start",
    "message": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1},
    },
}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "message_stop"}


def more(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def tool(index: int, call_id: str, **given: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": "look", "input": given}
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str, matched: str | None = None, **usage: int) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": matched}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9} | usage}


def read(reader: MessageReader, *events: dict[str, Any]) -> Batch:
    told: Batch = []
    for event in events:
        if event["type"] not in ("ping", "error", "new_kind"):
            TypeAdapter(RawMessageStreamEvent).validate_python(event)
        told += reader.read(json.dumps(event))
    return told


def test_a_text() -> None:
    reader = MessageReader()
    assert reader.usage is None
    ping = {"type": "ping"}
    told = read(reader, START, TEXT, more(0, type="text_delta", text="Hel"), ping)
    told += read(reader, more(0, type="text_delta", text="lo"), block_end(0), {"type": "new_kind"})
    assert not reader.complete
    told += read(reader, end("stop_sequence", "."), STOP)
    assert told == [Delta("Hel"), Delta("lo"), Finish("stop", matched=".")]
    assert reader.complete
    assert reader.usage == Usage(10, 9, cached_tokens=3)


def test_calls_of_tools_are_told_as_openai_tells_them() -> None:
    reader = MessageReader()
    told = read(reader, START, TEXT, more(0, type="text_delta", text="I look."), block_end(0))
    told += read(reader, tool(1, "a"), more(1, type="input_json_delta", partial_json=""))
    told += read(reader, more(1, type="input_json_delta", partial_json='{"city": '))
    told += read(reader, more(1, type="input_json_delta", partial_json='"Oslo"}'), block_end(1))
    told += read(reader, tool(2, "b"), block_end(2), tool(3, "c", city="Rome"), block_end(3), end("tool_use"))
    calls = [call for event in told if isinstance(event, Delta) for call in event.tool_calls or ()]
    assert told[-1] == Finish("tool_calls")
    arguments = ["", "", ""]
    for call in calls:
        arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == ['{"city": "Oslo"}', "{}", '{"city":"Rome"}']
    assert [call["id"] for call in calls if "id" in call] == ["a", "b", "c"]


def test_thoughts_are_not_told() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    start = {"type": "content_block_start", "index": 0, "content_block": thinking}
    told = read(
        MessageReader(),
        START,
        start,
        more(0, type="thinking_delta", thinking="Hm."),
        more(0, type="signature_delta", signature="x"),
        block_end(0),
    )
    assert told == []


def test_the_last_count_of_each_kind_holds() -> None:
    reader = MessageReader()
    read(reader, START, end("end_turn", input_tokens=20))
    assert reader.usage == Usage(23, 9, cached_tokens=3)


@pytest.mark.parametrize(
    ("kind", "raised", "told"),
    [
        ("invalid_request_error", InvalidCall, True),
        ("rate_limit_error", Overloaded, False),
        ("overloaded_error", ModelUnavailable, False),
        ("api_error", EngineFailed, False),
        ("authentication_error", EngineFailed, False),
    ],
)
def test_errors_in_a_stream(kind: str, raised: type[ClusterError], told: bool) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "said sk-secret"}}
    with pytest.raises(raised) as caught:
        read(MessageReader(), START, error)
    assert ("said" in caught.value.message) is told


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "[]",
        "{}",
        '{"type": 3}',
        '{"type": "content_block_delta", "index": "x"}',
        json.dumps(more(4, type="input_json_delta", partial_json="{")),
        '{"type": "message_delta", "delta": {"stop_reason": "bored"}}',
    ],
)
def test_what_is_not_anthropics_is_the_providers_failure(payload: str) -> None:
    with pytest.raises(EngineFailed):
        MessageReader().read(payload)
