"""The contract of `cluster.interface.Pool`, whatever is behind it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import aclosing
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cluster.errors import DeadlineExceeded, InvalidCall
from cluster.messages import Delta, Embed, Finish, Generate, Message, Sampling
from tests.cluster.calls import batches_of, embed, events_of, finishes_of, generate, text_of, usage_of
from tests.conformance.subjects import AT_LENGTH, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "What is the capital of France?"
LONG = 200
"""Tokens of an answer that takes every engine seconds."""

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Lyon", "Paris"]},
        "sure": {"$ref": "#/$defs/share"},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
        "next": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
    },
    "required": ["city", "sure", "names", "next"],
    "additionalProperties": False,
    "$defs": {"share": {"type": "integer", "minimum": 0, "maximum": 10}},
}

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An object with one field."""
    return {
        "type": "object",
        "properties": {field: schema},
        "required": [field],
        "additionalProperties": False,
    }


def ask(subject: Subject, text: str = QUESTION, **fields: Any) -> Generate:
    """A chat that has the same answer each time."""
    asked = {"temperature": 0.0} | fields.pop("sampling", {})
    sampling = Sampling(**{name: value for name, value in asked.items() if name not in subject.unknown})
    messages = [Message("user", text)]
    return generate(model=subject.pool.info.name, messages=messages, sampling=sampling, **fields)


def complete(subject: Subject, text: str, **fields: Any) -> Generate:
    if "prompt" in subject.unknown:
        pytest.skip("takes chats only")
    return generate(model=subject.pool.info.name, prompt=text, sampling=Sampling(temperature=0.0), **fields)


def embed_of(subject: Subject, *texts: str, **fields: Any) -> Embed:
    return embed(*texts, model=subject.pool.info.name, **fields)


def longest(subject: Subject, **fields: Any) -> Generate:
    return ask(subject, AT_LENGTH, max_tokens=LONG, sampling={"ignore_eos": True}, **fields)


async def aborted(subject: Subject) -> int:
    """Calls that the engine has ended before they were done, where that can be seen."""
    return 0 if subject.status is None else (await subject.status()).aborted


async def idle(subject: Subject) -> None:
    """Returns once the engine has nothing to do, where that can be seen; after a minute it fails."""
    if subject.status is None:
        return
    async with asyncio.timeout(60):
        while (await subject.status()).running:
            await asyncio.sleep(0.005)


async def test_it_says_what_it_is(subject: Subject) -> None:
    info = subject.pool.info
    assert info.task in ("generate", "embed")
    assert 0 < info.default_max_tokens < info.max_context
    assert await subject.pool.ready()


class TestGenerating:
    async def test_a_whole_answer_is_one_batch(self, generator: Subject) -> None:
        [events] = await batches_of(generator.pool.generate(ask(generator)))
        assert text_of(events)
        assert set(finishes_of(events)) == {0}
        assert usage_of(events).completion_tokens > 0

    async def test_a_stream_comes_in_parts_and_says_the_same(self, generator: Subject) -> None:
        [whole] = await batches_of(generator.pool.generate(ask(generator)))
        batches = await batches_of(generator.pool.generate(ask(generator, stream=True)))
        events = [event for batch in batches for event in batch]
        assert len(batches) > 1
        assert all(batches)
        assert text_of(events) == text_of(whole)
        assert finishes_of(events) == finishes_of(whole)
        assert usage_of(events).total_tokens == usage_of(whole).total_tokens

    @streamed
    async def test_a_completion_continues_its_prompt(self, generator: Subject, stream: bool) -> None:
        call = complete(generator, "The capital of France is", stream=stream)
        events = await events_of(generator.pool.generate(call))
        assert text_of(events)
        assert usage_of(events).prompt_tokens <= generator.pool.count_tokens(call)

    @streamed
    async def test_a_choice_ends_once_and_nothing_of_it_follows(
        self, generator: Subject, stream: bool
    ) -> None:
        events = await events_of(generator.pool.generate(ask(generator, stream=stream)))
        ends = [place for place, event in enumerate(events) if isinstance(event, Finish)]
        assert len(ends) == 1
        assert not any(isinstance(event, Delta) for event in events[ends[0] :])

    @streamed
    @pytest.mark.parametrize("text", [QUESTION, "Hé 🙂\n\u2028 数", ""], ids=["plain", "unicode", "empty"])
    async def test_the_prompt_costs_what_was_counted(
        self, generator: Subject, text: str, stream: bool
    ) -> None:
        call = ask(generator, text, stream=stream, max_tokens=2)
        charged = usage_of(await events_of(generator.pool.generate(call))).prompt_tokens
        counted = generator.pool.count_tokens(call)
        assert charged == counted if generator.counts_exactly else charged <= counted

    @streamed
    async def test_max_tokens_cuts_the_answer(self, generator: Subject, stream: bool) -> None:
        call = ask(generator, max_tokens=5, stream=stream, sampling={"min_tokens": 5})
        events = await events_of(generator.pool.generate(call))
        assert finishes_of(events) == {0: "length"}
        assert usage_of(events).completion_tokens == 5

    @streamed
    async def test_choices_are_apart_and_counted_together(self, generator: Subject, stream: bool) -> None:
        if "n" in generator.unknown:
            pytest.skip("has one choice only")
        call = generate(
            model=generator.pool.info.name,
            messages=[Message("user", QUESTION)],
            max_tokens=4,
            stream=stream,
            sampling=Sampling(n=3, temperature=1.0, seed=7),
        )
        events = await events_of(generator.pool.generate(call))
        assert set(finishes_of(events)) == {0, 1, 2}
        assert all(text_of(events, index) for index in range(3))
        assert 3 <= usage_of(events).completion_tokens <= 3 * 4

    @streamed
    async def test_a_stop_string_ends_the_answer_before_it(self, generator: Subject, stream: bool) -> None:
        answer = text_of(await events_of(generator.pool.generate(ask(generator))))
        stop = answer.split()[2]
        call = ask(generator, stream=stream, sampling={"stop": [stop]})
        events = await events_of(generator.pool.generate(call))
        assert text_of(events) == answer[: answer.index(stop)]
        assert finishes_of(events) == {0: "stop"}

    @streamed
    async def test_an_answer_held_to_a_schema_fits_it(self, generator: Subject, stream: bool) -> None:
        held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        call = ask(generator, max_tokens=LONG, stream=stream, sampling={"response_format": held})
        events = await events_of(generator.pool.generate(call))
        assert finishes_of(events) == {0: "stop"}
        assert Draft202012Validator(SCHEMA).is_valid(json.loads(text_of(events)))

    async def test_an_answer_held_to_one_of_several_forms_has_one(self, generator: Subject) -> None:
        forms = {
            "anyOf": [_form("tool", {"const": "look"}), _form("answer", {"type": "string", "maxLength": 9})]
        }
        held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": forms}}
        call = ask(generator, max_tokens=LONG, sampling={"response_format": held})
        answer = text_of(await events_of(generator.pool.generate(call)))
        assert Draft202012Validator(forms).is_valid(json.loads(answer))

    async def test_a_conversation_is_read_whole(self, generator: Subject) -> None:
        turns = [
            Message("system", "Be brief."),
            Message("user", "My name is Ada."),
            Message("assistant", "Hello Ada."),
            Message("user", [{"type": "text", "text": "What is my name?"}]),
        ]
        call = generate(model=generator.pool.info.name, messages=turns, max_tokens=8)
        alone = ask(generator, "What is my name?")
        assert generator.pool.count_tokens(call) > generator.pool.count_tokens(alone)
        assert text_of(await events_of(generator.pool.generate(call)))

    async def test_what_it_does_not_know_it_refuses_by_name(self, generator: Subject) -> None:
        asked = {"n": 2, "seed": 1, "min_tokens": 2, "logprobs": True} | {"logit_bias": {"5": 1.0}}
        for name in generator.unknown & set(asked):
            call = generate(
                model=generator.pool.info.name,
                messages=[Message("user", QUESTION)],
                sampling=Sampling(**{name: asked[name]}),
            )
            with pytest.raises(InvalidCall) as caught:
                await events_of(generator.pool.generate(call))
            assert caught.value.param == name

    async def test_leaving_a_stream_ends_the_work(self, generator: Subject) -> None:
        before = await aborted(generator)
        async with aclosing(generator.pool.generate(longest(generator, stream=True))) as batches:
            await anext(batches)
            if generator.status is not None:
                assert (await generator.status()).running == 1
        await idle(generator)
        assert await aborted(generator) == before + (generator.status is not None)

    @streamed
    async def test_a_cancelled_caller_ends_the_work(self, generator: Subject, stream: bool) -> None:
        before = await aborted(generator)
        task = asyncio.create_task(events_of(generator.pool.generate(longest(generator, stream=stream))))
        if generator.status is not None:
            async with asyncio.timeout(60):
                while not (await generator.status()).running:
                    await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(generator)
        assert await aborted(generator) == before + (generator.status is not None)

    @streamed
    @pytest.mark.parametrize("left_s", [-1.0, 0.1], ids=["passed", "passing"])
    async def test_a_deadline_is_kept(self, generator: Subject, stream: bool, left_s: float) -> None:
        call = longest(generator, stream=stream, deadline=time.time() + left_s)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await events_of(generator.pool.generate(call))
        assert time.monotonic() - started < 60
        await idle(generator)

    @streamed
    async def test_a_prompt_beyond_the_context_is_the_callers_mistake(
        self, generator: Subject, stream: bool
    ) -> None:
        if not generator.refuses_long:
            pytest.skip("leaves this to its caller")
        call = ask(generator, "word " * (generator.pool.info.max_context + 1), stream=stream)
        with pytest.raises(InvalidCall):
            await events_of(generator.pool.generate(call))

    async def test_calls_at_once_do_not_mix(self, generator: Subject) -> None:
        calls = [
            ask(generator, f"Count from {n}.", stream=bool(n % 2), max_tokens=8, request_id=f"r-{n}")
            for n in range(6)
        ]
        alone = [text_of(await events_of(generator.pool.generate(call))) for call in calls]
        together = await asyncio.gather(*(events_of(generator.pool.generate(call)) for call in calls))
        assert [text_of(events) for events in together] == alone
        await idle(generator)

    async def test_what_does_not_embed_says_so(self, only_generator: Subject) -> None:
        with pytest.raises(InvalidCall):
            await only_generator.pool.embed(embed_of(only_generator, "a"))


class TestEmbedding:
    TEXTS = (
        "The cat sat on the mat.",
        "Taxes are due in April.",
        "",
        "Hé 🙂 数",
        "a",
        "Prime numbers are odd.",
    )

    async def test_vectors_keep_the_order_of_their_texts(self, embedder: Subject) -> None:
        together = await embedder.pool.embed(embed_of(embedder, *self.TEXTS))
        assert len(together.vectors) == len(self.TEXTS)
        for place, text in enumerate(self.TEXTS):
            [alone] = (await embedder.pool.embed(embed_of(embedder, text))).vectors
            near = [_cosine(alone, vector) for vector in together.vectors]
            assert near[place] == max(near)
            assert near[place] > 0.95

    async def test_vectors_have_one_dimension_and_length_one(self, embedder: Subject) -> None:
        result = await embedder.pool.embed(embed_of(embedder, *self.TEXTS))
        assert len({len(vector) for vector in result.vectors}) == 1
        assert [math.hypot(*vector) for vector in result.vectors] == pytest.approx([1] * len(self.TEXTS))

    async def test_usage_is_what_was_counted(self, embedder: Subject) -> None:
        call = embed_of(embedder, *self.TEXTS)
        usage = (await embedder.pool.embed(call)).usage
        counted = embedder.pool.count_tokens(call)
        assert usage.prompt_tokens == counted if embedder.counts_exactly else usage.prompt_tokens <= counted
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens == 0

    async def test_a_passed_deadline_is_kept(self, embedder: Subject) -> None:
        with pytest.raises(DeadlineExceeded):
            await embedder.pool.embed(embed_of(embedder, "a", deadline=time.time() - 1))

    async def test_a_text_beyond_the_context_is_the_callers_mistake(self, embedder: Subject) -> None:
        if not embedder.refuses_long:
            pytest.skip("leaves this to its caller")
        with pytest.raises(InvalidCall) as caught:
            await embedder.pool.embed(embed_of(embedder, "a", "word " * (embedder.pool.info.max_context + 1)))
        assert (caught.value.param or "").startswith("input")

    async def test_calls_at_once_do_not_mix(self, embedder: Subject) -> None:
        calls = [embed_of(embedder, text) for text in self.TEXTS]
        alone = [(await embedder.pool.embed(call)).vectors[0] for call in calls]
        together = await asyncio.gather(*(embedder.pool.embed(call) for call in calls))
        for result, vector in zip(together, alone, strict=True):
            assert result.vectors == [pytest.approx(vector, abs=1e-5)]

    @streamed
    async def test_what_does_not_generate_says_so(self, only_embedder: Subject, stream: bool) -> None:
        with pytest.raises(InvalidCall):
            await events_of(only_embedder.pool.generate(ask(only_embedder, stream=stream)))


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
