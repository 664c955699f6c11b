"""Answers and events as the types of Anthropic's own SDK have them: nothing missing, nothing besides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

from cluster.errors import EngineFailed
from cluster.interface import Batch
from cluster.messages import Delta, Finish, Usage
from serve_apps.translators.anthropic_replies import MessageLabel, MessageStream, message_answer

LABEL = MessageLabel("msg_01", "tiny")
USAGE = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=6)
_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def call(number: int | None, arguments: str = "", **first: str) -> dict[str, Any]:
    """A delta of a tool call as engines send it: its id and name come with the first."""
    function = {"arguments": arguments} | ({"name": first["name"]} if first else {})
    identified = {"id": first["id"], "type": "function"} if "id" in first else {}
    return ({} if number is None else {"index": number}) | identified | {"function": function}


WEATHER = [
    Delta(tool_calls=[call(0, id="call_a", name="weather")]),
    Delta(tool_calls=[call(0, '{"city": ')]),
    Delta(tool_calls=[call(0, '"Paris"}')]),
]
TIME = [Delta(tool_calls=[call(1, "{}", id="call_b", name="time")])]
PARIS = {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Paris"}}
NOW = {"type": "tool_use", "id": "call_b", "name": "time", "input": {}}

REPLIES: dict[str, tuple[Batch, list[dict[str, Any]], str, str | None]] = {
    "text": (
        [Delta("Hel"), Delta("lo"), Finish("stop")],
        [{"type": "text", "text": "Hello"}],
        "end_turn",
        None,
    ),
    "cut": ([Delta("Hel"), Finish("length")], [{"type": "text", "text": "Hel"}], "max_tokens", None),
    "stopped": (
        [Delta("Hel"), Finish("stop", matched="lo")],
        [{"type": "text", "text": "Hel"}],
        "stop_sequence",
        "lo",
    ),
    "refused": ([Finish("content_filter")], [], "refusal", None),
    "nothing": ([Finish("stop")], [], "end_turn", None),
    "tools": (
        [Delta("I look."), *WEATHER, *TIME, Finish("tool_calls")],
        [{"type": "text", "text": "I look."}, PARIS, NOW],
        "tool_use",
        None,
    ),
    "a forced tool": ([*WEATHER, Finish("stop")], [PARIS], "tool_use", None),
    "another choice": (
        [Delta("one"), Delta("two", index=1), Finish("stop"), Finish("length", index=1)],
        [{"type": "text", "text": "one"}],
        "end_turn",
        None,
    ),
}
TOKENS = {
    "input_tokens": 4,
    "cache_read_input_tokens": 6,
    "cache_creation_input_tokens": 0,
    "output_tokens": 4,
}


def strictly(sent: dict[str, Any], parsed: BaseModel) -> BaseModel:
    """The parsed object, which says exactly what was sent."""
    assert parsed.model_dump(mode="json", exclude_unset=True) == sent
    assert not parsed.model_extra
    return parsed


def streamed(*batches: Batch) -> list[Any]:
    """The events of a stream, each parsed by the SDK's types."""
    stream = MessageStream(LABEL)
    raw = b"".join(stream.feed(batch) for batch in batches) + stream.end(USAGE, None)
    events = []
    for block in raw.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        sent = json.loads(data.removeprefix("data: "))
        assert name == f"event: {sent['type']}"
        events.append(strictly(sent, _EVENTS.validate_python(sent)))
    return events


@pytest.mark.parametrize("name", REPLIES)
def test_whole(name: str) -> None:
    events, content, reason, matched = REPLIES[name]
    sent = json.loads(message_answer(LABEL, [*events, USAGE]))
    strictly(sent, Message.model_validate(sent))
    assert sent["content"] == content
    assert (sent["stop_reason"], sent["stop_sequence"]) == (reason, matched)
    assert sent["usage"] == TOKENS
    assert (sent["id"], sent["model"], sent["role"]) == ("msg_01", "tiny", "assistant")


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("together", [True, False])
def test_streamed(name: str, together: bool) -> None:
    """However the events are batched, a client that adds them up has the whole message."""
    events, content, reason, matched = REPLIES[name]
    told = streamed([*events, USAGE]) if together else streamed(*([event] for event in [*events, USAGE]))
    assert told[0].type == "message_start"
    assert told[0].message.content == []
    assert told[0].message.stop_reason is None
    assert [event.type for event in told[-2:]] == ["message_delta", "message_stop"]
    assert told[-2].usage.model_dump(exclude_unset=True) == TOKENS
    assert (told[-2].delta.stop_reason, told[-2].delta.stop_sequence) == (reason, matched)
    blocks: list[dict[str, Any]] = []
    partial = ""
    for event in told[1:-2]:
        if event.type == "content_block_start":
            assert event.index == len(blocks)
            blocks.append(event.content_block.model_dump(exclude_unset=True))
            partial = ""
        elif event.type == "content_block_delta":
            assert event.index == len(blocks) - 1
            if event.delta.type == "text_delta":
                blocks[-1]["text"] += event.delta.text
            else:
                partial += event.delta.partial_json
        else:
            assert (event.type, event.index) == ("content_block_stop", len(blocks) - 1)
            if partial:
                blocks[-1]["input"] = json.loads(partial)
    starts = [event.type for event in told].count("content_block_start")
    assert starts == [event.type for event in told].count("content_block_stop") == len(content)
    assert blocks == content


def test_texts_that_leave_together_are_one_event() -> None:
    told = streamed([Delta("a"), Delta("b")], [Delta("c"), Finish("stop")])
    assert [event.delta.text for event in told if event.type == "content_block_delta"] == ["ab", "c"]


def test_tool_calls_without_ids_get_one() -> None:
    unnamed: Batch = [Delta(tool_calls=[call(None, "{}", name="time")]), Finish("tool_calls")]
    whole = json.loads(message_answer(LABEL, [*unnamed, USAGE]))
    assert whole["content"][0]["id"] == "toolu_01_0"
    assert streamed(unnamed)[1].content_block.id == "toolu_01_0"


def test_tool_calls_that_are_mixed_up_end_the_stream() -> None:
    with pytest.raises(EngineFailed, match="mixed up"):
        streamed([*WEATHER[:1], *TIME, *WEATHER[1:]])


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", "none"])
def test_half_a_call_is_none(arguments: str) -> None:
    """Cut off by the bound of the output it is left out; else the model failed at it."""
    begun: Batch = [Delta("I look."), Delta(tool_calls=[call(0, arguments, id="call_a", name="weather")])]
    cut = json.loads(message_answer(LABEL, [*begun, Finish("length"), USAGE]))
    assert cut["content"] == [{"type": "text", "text": "I look."}]
    assert cut["stop_reason"] == "max_tokens"
    with pytest.raises(EngineFailed, match="no JSON object"):
        message_answer(LABEL, [*begun, Finish("tool_calls"), USAGE])
