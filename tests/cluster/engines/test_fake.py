from __future__ import annotations

import math
import re
import time
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule, words
from cluster.errors import InvalidCall, Overloaded
from cluster.interface import Batch
from cluster.messages import Delta, EngineStatus, Failure, Finish, Message, Sampling, Usage
from tests.cluster.calls import (
    batches_of,
    chat,
    embed,
    events_of,
    finishes_of,
    generate,
    keep,
    text_of,
    usage_of,
)

PARIS = Rule(contains="capital of France", reply="It is Paris.")
BUSY = Failure("Overloaded", "full", retry_after_s=3.0)


@given(st.text())
def test_tokens_are_the_words_of_a_text(text: str) -> None:
    assert "".join(words(text)) == text.rstrip()
    assert len(words(text)) == len(text.split())


def test_counts_can_be_done_by_eye() -> None:
    count = FakeTokenCounter().count
    assert count(embed("one two", "three")) == 3
    assert count(generate(prompt="one two")) == 2
    turns = [
        Message("system", "one two"),
        Message("user", [{"type": "text", "text": "three"}, {"type": "image_url"}]),
        Message("assistant"),
    ]
    assert count(generate(messages=turns)) == 3


async def test_the_first_rule_that_fits_the_last_user_message_answers() -> None:
    engine = FakeEngine(FakeScript(rules=[PARIS, Rule(contains="", reply="Something else.")]))
    asked = await events_of(engine.generate(chat("The capital of France?")))
    assert text_of(asked) == "It is Paris."
    assert finishes_of(asked) == {0: "stop"}
    assert usage_of(asked) == Usage(4, 3)
    turns = [
        Message("user", "The capital of France?"),
        Message("assistant", "Paris"),
        Message("user", "Thanks"),
    ]
    assert text_of(await events_of(engine.generate(generate(messages=turns)))) == "Something else."
    assert text_of(await events_of(engine.generate(generate(prompt="capital of France:")))) == "It is Paris."


async def test_without_a_rule_the_same_call_has_the_same_answer() -> None:
    first, again = [text_of(await events_of(FakeEngine().generate(chat("Hello")))) for _ in range(2)]
    assert first == again
    assert len(words(first)) == FakeScript().output_tokens
    assert first != text_of(await events_of(FakeEngine().generate(chat("Hallo"))))
    assert first != text_of(await events_of(FakeEngine().generate(chat("Hello", sampling=Sampling(seed=1)))))


async def test_max_tokens_cuts_the_answer() -> None:
    events = await events_of(FakeEngine().generate(chat(max_tokens=3)))
    assert len(words(text_of(events))) == 3
    assert finishes_of(events) == {0: "length"}
    assert usage_of(events).completion_tokens == 3


async def test_an_answer_of_just_max_tokens_is_whole() -> None:
    events = await events_of(FakeEngine(FakeScript(output_tokens=3)).generate(chat(max_tokens=3)))
    assert finishes_of(events) == {0: "stop"}


async def test_ignore_eos_fills_max_tokens() -> None:
    events = await events_of(FakeEngine().generate(chat(max_tokens=50, sampling=Sampling(ignore_eos=True))))
    assert usage_of(events).completion_tokens == 50


@pytest.mark.parametrize(
    ("stop", "text", "matched"),
    [
        (["Paris"], "It is ", "Paris"),
        (["is Pa"], "It ", "is Pa"),
        (["Rome", "."], "It is Paris", "."),
        (["Paris", "is"], "It ", "is"),
        (["It"], "", "It"),
        (["Rome"], "It is Paris.", None),
    ],
)
async def test_the_first_stop_string_ends_the_answer_before_it(
    stop: list[str], text: str, matched: str | None
) -> None:
    engine = FakeEngine(FakeScript(rules=[PARIS]))
    events = await events_of(engine.generate(chat(PARIS.contains, sampling=Sampling(stop=stop))))
    assert text_of(events) == text
    assert Finish("stop", matched=matched) in events
    assert usage_of(events).completion_tokens == len(re.findall(r"\s*\S+|\s+", text))


async def test_a_stop_string_beyond_max_tokens_does_not_count() -> None:
    engine = FakeEngine(FakeScript(rules=[PARIS]))
    call = chat(PARIS.contains, max_tokens=2, sampling=Sampling(stop=["Paris"]))
    assert finishes_of(await events_of(engine.generate(call))) == {0: "length"}


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_have_their_own_index(stream: bool) -> None:
    engine = FakeEngine(FakeScript(rules=[PARIS]))
    events = await events_of(engine.generate(chat(PARIS.contains, stream=stream, sampling=Sampling(n=3))))
    assert [text_of(events, index) for index in range(3)] == ["It is Paris."] * 3
    assert finishes_of(events) == {0: "stop", 1: "stop", 2: "stop"}
    assert usage_of(events) == Usage(3, 9)


async def test_a_stream_has_as_many_tokens_a_batch_as_scripted() -> None:
    engine = FakeEngine(FakeScript(output_tokens=5, tokens_per_batch=2))
    batches = await batches_of(engine.generate(chat(stream=True)))
    assert [sum(isinstance(event, Delta) for event in batch) for batch in batches] == [2, 2, 1, 0]


async def test_a_whole_answer_is_one_batch() -> None:
    [batch] = await batches_of(FakeEngine().generate(chat()))
    assert isinstance(batch[-1], Usage)


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_are_answered_in_place_of_text(stream: bool) -> None:
    tool_calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
    engine = FakeEngine(FakeScript(rules=[Rule(contains="", tool_calls=tool_calls)]))
    events = await events_of(engine.generate(chat(stream=stream)))
    assert [e.tool_calls for e in events if isinstance(e, Delta)] == [tool_calls]
    assert text_of(events) == ""
    assert finishes_of(events) == {0: "tool_calls"}


@pytest.mark.parametrize("after", [0, 2, 99])
async def test_a_failure_comes_after_so_many_tokens(after: int) -> None:
    rule = Rule(contains="", reply="a b c d", failure=BUSY, failure_after=after)
    engine = FakeEngine(FakeScript(rules=[rule]))
    seen: Batch = []
    with pytest.raises(Overloaded, match="full") as caught:
        await keep(engine.generate(chat(stream=True)), seen)
    assert caught.value.retry_after_s == 3.0
    assert text_of(seen) == "a b c d"[: max(0, 2 * after - 1)]
    assert await engine.status() == EngineStatus(0, 0, 1, 1, min(after, 4))


async def test_the_status_counts_what_runs_ends_and_is_left() -> None:
    engine = FakeEngine(FakeScript(output_tokens=4))
    await events_of(engine.generate(chat()))
    async with aclosing(engine.generate(chat(stream=True))) as batches:
        await anext(batches)
        assert (await engine.status()).running == 1
    await engine.embed(embed("one two"))
    assert await engine.status() == EngineStatus(0, 2, 1, 1 + 1 + 2, 4 + 1)


async def test_an_answer_can_have_a_pace_of_its_own() -> None:
    engine = FakeEngine(FakeScript(rules=[Rule(contains="at once", reply="a b c", token_s=0.0)], token_s=60))
    events = await events_of(engine.generate(chat("at once, please", stream=True)))
    assert text_of(events) == "a b c"


async def test_latency_is_scripted() -> None:
    engine = FakeEngine(FakeScript(output_tokens=4, first_token_s=0.03, token_s=0.01, tokens_per_batch=2))
    started = time.perf_counter()
    await events_of(engine.generate(chat()))
    assert time.perf_counter() - started >= 0.03 + 2 * 0.01


async def test_embeddings_are_near_when_texts_share_words() -> None:
    result = await FakeEngine(FakeScript(dimension=64)).embed(
        embed("a red car", "the red car", "blue sky", "")
    )
    assert all(len(vector) == 64 and math.hypot(*vector) == pytest.approx(1) for vector in result.vectors)
    car, same, sky, _ = result.vectors
    assert _cosine(car, same) > _cosine(car, sky)
    assert result.usage == Usage(8)


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_the_fake_is_healthy() -> None:
    assert await FakeEngine().check_health() is None  # type: ignore[func-returns-value]


async def test_an_answer_held_to_a_schema_is_an_instance_of_it() -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["very good", "bad"]}},
        "required": ["label"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    engine = FakeEngine(FakeScript(rules=[PARIS]))
    for stream in (False, True):
        asked = chat(sampling=Sampling(response_format=form), stream=stream)
        assert text_of(await events_of(engine.generate(asked))) == '{"label": "very good"}'
    scripted = chat("The capital of France?", sampling=Sampling(response_format=form))
    assert text_of(await events_of(engine.generate(scripted))) == "It is Paris."
    free = chat(sampling=Sampling(response_format={"type": "json_object"}))
    assert text_of(await events_of(engine.generate(free))) == "{}"
    no_schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "?"}}}
    with pytest.raises(InvalidCall):
        await events_of(engine.generate(chat(sampling=Sampling(response_format=no_schema))))
