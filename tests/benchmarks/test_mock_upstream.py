"""The mock upstream speaks enough of OpenAI's dialect for the official client."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from benchmarks.mock_upstream import CHUNKS, PROMPT_TOKENS, WORDS

QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def client(upstream_port):
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{upstream_port}/v1", api_key="none") as made:
        yield made


async def test_a_whole_answer(client):
    answer = await client.chat.completions.create(model="mock", messages=QUESTION)
    assert answer.choices[0].message.content == "".join(WORDS)
    assert answer.usage.prompt_tokens == PROMPT_TOKENS
    assert answer.usage.total_tokens == PROMPT_TOKENS + CHUNKS


async def test_a_stream_of_twenty_chunks_and_its_usage(client):
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(model="mock", messages=QUESTION, stream=True)
    ]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [text for text in texts if text] == WORDS
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == CHUNKS


async def test_requests_on_one_connection_are_answered_in_order(client):
    for stream in (False, True, False):
        reply = await client.chat.completions.create(model="mock", messages=QUESTION, stream=stream)
        if stream:
            assert len([chunk async for chunk in reply]) == CHUNKS + 2
        else:
            assert reply.choices[0].finish_reason == "stop"
