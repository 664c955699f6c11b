"""Conversations kept under a `contextId`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.conftest import CHAT, Site, Start

SCRIPT = FakeScript(
    rules=[
        Rule(contains="fail", reply="one two", failure=Failure("EngineFailed", "x"), failure_after=1),
        Rule(
            contains="tool",
            tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        ),
        Rule(contains="", reply="Noted."),
    ]
)


async def history(site: Site, context_id: str) -> list[dict[str, Any]]:
    response = await site.http.get(f"/v1/contexts/{context_id}")
    assert response.status_code == 200
    turns: list[dict[str, Any]] = response.json()["sessionHistory"]
    return turns


async def test_turns_follow_each_other(start: Start) -> None:
    site = await start(SCRIPT)
    first = await site.chat("My name is Ada.", contextId="c-1")
    assert (first.headers["x-context-id"], first.headers["x-context-version"]) == ("c-1", "1")
    assert first.json()["usage"]["prompt_tokens"] == 4
    second = await site.chat("And yours?", contextId="c-1")
    assert second.json()["usage"]["prompt_tokens"] == 4 + 1 + 2
    assert [turn["content"] for turn in await history(site, "c-1")] == [
        "My name is Ada.",
        "Noted.",
        "And yours?",
        "Noted.",
    ]


async def test_streamed_turn_tells_its_version_with_the_finish(start: Start) -> None:
    site = await start(SCRIPT)
    response = await site.chat("Hello.", contextId="c-2", stream=True, stream_options={"include_usage": True})
    assert response.headers["x-context-id"] == "c-2"
    chunks = [json.loads(block[6:]) for block in response.text.split("\n\n")[:-2]]
    finish = next(chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"])
    assert finish["context"] == {"id": "c-2", "version": 1}
    assert chunks[-1]["usage"]["total_tokens"] == 2
    assert len(await history(site, "c-2")) == 2


async def test_instructions_are_not_turns(start: Start) -> None:
    site = await start(SCRIPT)
    for _ in range(2):
        response = await site.http.post(
            "/v1/chat/completions",
            json={
                "model": CHAT,
                "contextId": "c-3",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Hello."},
                ],
            },
        )
        assert response.status_code == 200
    assert response.json()["usage"]["prompt_tokens"] == 2 + 1 + 1 + 1
    assert [turn["role"] for turn in await history(site, "c-3")] == ["user", "assistant"] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_failed_calls_keep_nothing(start: Start, stream: bool) -> None:
    site = await start(SCRIPT)
    response = await site.chat("please fail", contextId="c-4", stream=stream)
    assert response.status_code == (200 if stream else 503)
    assert "engine_failed" in response.text
    assert (await site.http.get("/v1/contexts/c-4")).status_code == 404


async def test_tool_calls_are_kept(start: Start) -> None:
    site = await start(SCRIPT)
    await site.chat("use a tool", contextId="c-5", stream=True)
    turn = (await history(site, "c-5"))[-1]
    assert turn["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


async def test_turns_at_once_are_all_kept(start: Start) -> None:
    site = await start(SCRIPT)
    await asyncio.gather(*(site.chat(f"turn {number}", contextId="c-6") for number in range(10)))
    turns = await history(site, "c-6")
    assert len(turns) == 20
    assert {turn["content"] for turn in turns[::2]} == {f"turn {number}" for number in range(10)}
    assert all(turn["content"] == "Noted." for turn in turns[1::2])


async def test_forgotten_on_request(start: Start) -> None:
    site = await start(SCRIPT)
    await site.chat("Hello.", contextId="c-7")
    deleted = await site.http.delete("/v1/contexts/c-7")
    assert deleted.json() == {"id": "c-7", "deleted": True, "object": "context.deleted"}
    assert (await site.http.delete("/v1/contexts/c-7")).json()["deleted"] is False
    missing = await site.http.get("/v1/contexts/c-7")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "context_not_found")


async def test_tenants_do_not_meet(start: Start, keys: KeyStore) -> None:
    site = await start(SCRIPT)
    await site.chat("My name is Ada.", contextId="shared")
    token, _ = await keys.create("rivals", "spy")
    site.http.headers["authorization"] = f"Bearer {token}"
    assert (await site.http.get("/v1/contexts/shared")).status_code == 404
    assert (await site.http.delete("/v1/contexts/shared")).json()["deleted"] is False
    theirs = await site.chat("Who am I?", contextId="shared")
    assert theirs.json()["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("context_id", ["", "a:b", "a{b}", "../x", "x" * 129, 7])
async def test_bad_ids(site: Site, context_id: Any) -> None:
    response = await site.chat(contextId=context_id)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "contextId")
    assert (await site.http.get("/v1/contexts/a:b")).status_code == 400


async def test_one_reply_to_a_turn(site: Site) -> None:
    response = await site.chat(contextId="c-8", n=2)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
