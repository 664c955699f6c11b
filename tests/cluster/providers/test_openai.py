from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from cluster.config import OpenAISpec
from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.errors import (
    ClusterError,
    DeadlineExceeded,
    EngineFailed,
    InvalidCall,
    ModelUnavailable,
    Overloaded,
)
from cluster.interface import Batch, ModelInfo
from cluster.messages import Delta, Finish, Generate, Sampling, Usage
from cluster.providers import remote
from cluster.providers.openai import OpenAIPool
from cluster.tokens import ByteTokenCounter
from tests.cluster.calls import chat, embed, events_of, generate, keep, text_of, usage_of
from tests.conformance.upstream import EMBED, GENERATE, KEY, Upstream

REPLY = "Line\u2028one, hé 🙂 and\x85more."


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    rules = [
        Rule(contains="slowly", reply="slow " * 500),
        Rule(contains="long", reply="word " * 50),
        Rule(contains="", reply=REPLY),
    ]
    async with Upstream(FakeEngine(FakeScript(rules=rules))).serve() as running:
        yield running


@pytest.fixture
async def pool(upstream: Upstream) -> AsyncIterator[OpenAIPool]:
    pool = pool_at(upstream.url)
    yield pool
    await pool.close()


def pool_at(url: str, **fields: Any) -> OpenAIPool:
    spec = OpenAISpec(
        **(
            {"name": "ours", "engine": "openai", "base_url": url, "model": GENERATE, "api_key_env": "K"}
            | fields
        )
    )
    info = ModelInfo(spec.name, spec.task, spec.max_context, spec.default_max_tokens)
    return OpenAIPool(spec, info, ByteTokenCounter(), {"K": KEY})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", [chat("Hi"), generate(prompt="Hi")], ids=["chat", "completion"])
async def test_text_arrives_as_the_provider_sent_it(
    pool: OpenAIPool, upstream: Upstream, call: Generate, stream: bool
) -> None:
    call = chat("Hi", stream=stream) if call.messages else generate(prompt="Hi", stream=stream)
    events = await events_of(pool.generate(call))
    assert text_of(events) == REPLY
    assert usage_of(events) == Usage(1, 6)
    [(request, body)] = upstream.requests
    assert body["model"] == GENERATE
    assert "tenant" not in body
    assert request.headers["Authorization"] == f"Bearer {KEY}"


async def test_without_a_key_none_is_sent(upstream: Upstream) -> None:
    pool = pool_at(upstream.url, api_key_env=None)
    with pytest.raises(EngineFailed, match="401"):
        await events_of(pool.generate(chat()))
    assert "Authorization" not in upstream.requests[0][0].headers
    await pool.close()


async def test_a_url_may_end_with_a_slash(upstream: Upstream) -> None:
    pool = pool_at(upstream.url + "/")
    assert text_of(await events_of(pool.generate(chat()))) == REPLY
    await pool.close()


async def test_the_model_has_our_name_where_no_other_is_given() -> None:
    upstream = Upstream(FakeEngine())
    async with upstream.serve():
        pool = pool_at(upstream.url, name=GENERATE, model=None)
        assert text_of(await events_of(pool.generate(chat())))
        await pool.close()


TROUBLES = [
    ("401", EngineFailed, None),
    ("429", Overloaded, 7.0),
    ("500", EngineFailed, None),
    ("503", ModelUnavailable, 1.0),
    ("redirect", EngineFailed, None),
    ("html", EngineFailed, None),
    ("cut", EngineFailed, None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("trouble", "kind", "retry_after_s"), TROUBLES)
async def test_a_providers_trouble_is_put_in_our_terms(
    pool: OpenAIPool, stream: bool, trouble: str, kind: type[ClusterError], retry_after_s: float | None
) -> None:
    with pytest.raises(kind) as caught:
        await events_of(pool.generate(chat(f"trouble: {trouble}", stream=stream)))
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == retry_after_s
    assert KEY not in caught.value.message


@pytest.mark.parametrize(
    ("trouble", "kind"), [("cut", EngineFailed), ("no done", EngineFailed), ("error in stream", Overloaded)]
)
async def test_a_stream_that_breaks_off_is_an_error_after_what_came(
    pool: OpenAIPool, trouble: str, kind: type[ClusterError]
) -> None:
    seen: Batch = []
    with pytest.raises(kind) as caught:
        await keep(pool.generate(chat(f"trouble: {trouble}", stream=True)), seen)
    assert text_of(seen)
    assert not any(isinstance(event, Usage) for event in seen)
    assert KEY not in caught.value.message


async def test_a_refused_call_says_why(pool: OpenAIPool) -> None:
    with pytest.raises(InvalidCall, match="600 tokens") as caught:
        await events_of(pool.generate(chat("word " * 600)))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_is_missing_is_bounded_from_above(pool: OpenAIPool, stream: bool) -> None:
    call = chat("trouble: no usage", stream=stream)
    events = await events_of(pool.generate(call))
    assert usage_of(events) == Usage(pool.count_tokens(call), min(len(REPLY.encode()), call.max_tokens))
    choices = chat("trouble: no usage, long", stream=stream, max_tokens=2, sampling=Sampling(n=3))
    assert usage_of(await events_of(pool.generate(choices))).completion_tokens == 6


async def test_usage_that_is_repeated_counts_once(pool: OpenAIPool) -> None:
    events = await events_of(pool.generate(chat("trouble: early usage", stream=True)))
    assert usage_of(events) == Usage(3, 6)


async def test_a_reply_without_choices_is_charged_and_empty(pool: OpenAIPool) -> None:
    call = chat("trouble: empty")
    assert await events_of(pool.generate(call)) == [Usage(pool.count_tokens(call))]


async def test_bytes_that_are_no_text_do_not_break_a_stream(pool: OpenAIPool) -> None:
    events = await events_of(pool.generate(chat("trouble: garbage", stream=True)))
    assert "\ufffd" in text_of(events)
    assert isinstance(events[-1], Usage)


async def test_a_cookie_of_one_call_does_not_travel_with_the_next(
    pool: OpenAIPool, upstream: Upstream
) -> None:
    await events_of(pool.generate(chat("trouble: cookie")))
    await events_of(pool.generate(chat()))
    assert [request.headers.get("Cookie") for request, _ in upstream.requests] == [None, None]


async def test_a_connection_serves_one_stream_after_another(pool: OpenAIPool, upstream: Upstream) -> None:
    for text in ("one", "trouble: late end", "three"):
        await events_of(pool.generate(chat(text, stream=True)))
    ports = {request.get_extra_info("peername")[1] for request, _ in upstream.requests}
    assert len(ports) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_ends_the_call_there_too(
    pool: OpenAIPool, upstream: Upstream, stream: bool
) -> None:
    upstream.engine.script = FakeScript(token_s=0.05, output_tokens=400)
    call = chat(stream=stream, max_tokens=400, deadline=time.time() + 1.5)
    with pytest.raises(DeadlineExceeded):
        await events_of(pool.generate(call))
    await idle(upstream.engine)
    assert (await upstream.engine.status()).aborted == 1


async def test_a_call_that_is_late_is_not_sent(pool: OpenAIPool, upstream: Upstream) -> None:
    with pytest.raises(DeadlineExceeded):
        await events_of(pool.generate(chat(deadline=time.time() - 1)))
    with pytest.raises(DeadlineExceeded):
        await pool.embed(embed("a", deadline=time.time() - 1))
    assert upstream.requests == []


async def test_a_deadline_can_pass_while_all_connections_are_taken(upstream: Upstream) -> None:
    upstream.engine.script = FakeScript(token_s=0.05, output_tokens=400)
    pool = pool_at(upstream.url, max_connections=1)
    async with aclosing(pool.generate(chat(stream=True, max_tokens=400))) as batches:
        await anext(batches)
        with pytest.raises(DeadlineExceeded):
            await events_of(pool.generate(chat(deadline=time.time() + 0.05)))
    await pool.close()


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pool = pool_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ModelUnavailable, match="ours cannot be reached") as caught:
            await events_of(pool.generate(chat()))
        assert caught.value.retry_after_s
        with pytest.raises(ModelUnavailable):
            await pool.embed(embed("a"))
    assert await pool.ready()
    await pool.close()


async def test_what_is_too_large_is_not_read(pool: OpenAIPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_REPLY_BYTES", 64)
    monkeypatch.setattr(remote, "MAX_EVENT_BYTES", 8)
    with pytest.raises(EngineFailed, match="reply is too large"):
        await events_of(pool.generate(chat()))
    with pytest.raises(EngineFailed, match="event is too large"):
        await events_of(pool.generate(chat(stream=True)))


async def test_closing_a_stream_ends_it_at_the_provider(pool: OpenAIPool, upstream: Upstream) -> None:
    upstream.engine.script = FakeScript(token_s=0.05, output_tokens=400)
    async with aclosing(pool.generate(chat(stream=True, max_tokens=400))) as batches:
        await anext(batches)
    await idle(upstream.engine)
    assert (await upstream.engine.status()).aborted == 1


async def test_vectors_are_ordered_normalised_and_charged(upstream: Upstream) -> None:
    pool = pool_at(upstream.url, model=EMBED, task="embed")
    call = embed("one two", "three")
    result, expected = await pool.embed(call), await FakeEngine().embed(call)
    assert result.vectors == [pytest.approx(vector) for vector in expected.vectors]
    assert result.usage == expected.usage
    untold = embed("trouble: no usage")
    assert (await pool.embed(untold)).usage == Usage(pool.count_tokens(untold))
    await pool.close()


async def idle(engine: FakeEngine) -> None:
    """Waits, a minute at most, until the engine has nothing left to do."""
    async with asyncio.timeout(60):
        while (await engine.status()).running:
            await asyncio.sleep(0.005)


async def test_choices_and_their_ends_arrive(pool: OpenAIPool) -> None:
    events = await events_of(pool.generate(chat("long", stream=True, max_tokens=2, sampling=Sampling(n=2))))
    assert {event.index for event in events if isinstance(event, Delta)} == {0, 1}
    assert [event for event in events if isinstance(event, Finish)] == [Finish("length"), Finish("length", 1)]
