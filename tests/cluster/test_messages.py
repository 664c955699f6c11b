from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.messages import (
    Delta,
    Embed,
    Embeddings,
    EngineStatus,
    Failure,
    Finish,
    Generate,
    Message,
    Sampling,
    Usage,
    decode_call,
    decode_embeddings,
    decode_events,
    decode_status,
    encode,
)

CALLS = {
    "chat": Generate(
        request_id="r-1",
        model="smollm2",
        max_tokens=7,
        deadline=1.5,
        messages=[
            Message("system", "Be brief."),
            Message("user", [{"type": "text", "text": "Hé 🙂"}], name="ada"),
            Message(
                "assistant", None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]
            ),
            Message("tool", "42", tool_call_id="c"),
        ],
        sampling=Sampling(temperature=0.0, n=2, stop=["\n"], logit_bias={"5": -1.0}, tools=[{"x": None}]),
        stream=True,
        tenant="acme",
        priority=-3,
    ),
    "completion": Generate("r-2", "smollm2", 1, 2.0, prompt=""),
    "embed": Embed("r-3", "minilm", ["a", ""], 3.0, "acme", 1),
}

EVENTS = [
    Delta("Hi", 1, [{"index": 0}], {"content": []}),
    Delta(),
    Finish("length", 1),
    Usage(5, 6, 4),
    Failure("InvalidCall", "no", "messages", 1.5),
]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_survive_the_wire(call: Generate | Embed) -> None:
    assert decode_call(encode(call)) == call


def test_events_survive_the_wire_in_order() -> None:
    assert decode_events(encode(EVENTS)) == EVENTS


@pytest.mark.parametrize(
    "reply",
    [Embeddings([[0.6, 0.8], [1.0, 0.0]], Usage(3)), Failure("Overloaded", "full", retry_after_s=2.0)],
    ids=["vectors", "failure"],
)
def test_embeddings_or_a_failure_survive_the_wire(reply: Embeddings | Failure) -> None:
    assert decode_embeddings(encode(reply)) == reply


def test_a_status_survives_the_wire() -> None:
    status = EngineStatus(1, 2, 3, 4, 5)
    assert decode_status(encode(status)) == status


def test_what_is_default_is_not_sent() -> None:
    sent = msgspec.msgpack.decode(encode(Generate("r", "m", 1, 2.0)))
    assert sent == {"type": "generate", "request_id": "r", "model": "m", "max_tokens": 1, "deadline": 2.0}


def test_usages_add_up() -> None:
    total = Usage(1, 2, 1) + Usage(10, 20, 5)
    assert total == Usage(11, 22, 6)
    assert total.total_tokens == 33


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (decode_call, {"type": "train", "request_id": "r"}),
        (decode_call, {"type": "delta"}),
        (decode_events, [{"type": "thought"}]),
        (decode_embeddings, {"type": "usage"}),
    ],
)
def test_an_unknown_tag_is_refused(decode: Any, payload: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid value"):
        decode(encode(payload))


def test_a_sampling_field_that_is_not_allowed_is_refused() -> None:
    call = msgspec.to_builtins(CALLS["completion"]) | {"sampling": {"prompt_logprobs": 5}}
    with pytest.raises(msgspec.ValidationError, match="prompt_logprobs"):
        decode_call(encode(call))


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Usage().prompt_tokens = 1  # type: ignore[misc]
