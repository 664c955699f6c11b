"""Requests with an `Idempotency-Key`: done once, answered as often as they come."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure
from runtime.store.client import Store
from serve_apps.gateway import recording
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import CHAT, EMBED, MAX_CONTEXT, Site, Start, eventually

KEYS = 200
DUPLICATES = 20
GATEWAYS = 3
AT_ONCE = 1_000


@pytest.fixture
async def one_store(store: Store) -> Store:
    """Of both kinds in turn."""
    return store


def ask(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], **fields}


async def chat(site: Site, key: str, text: str = "hello there", **fields: Any) -> httpx.Response:
    headers = {"idempotency-key": key}
    return await site.http.post(
        "/v1/chat/completions", json=ask(text, **fields), headers=headers, timeout=120
    )


async def completed(site: Site) -> int:
    return (await site.engine.status()).completed


async def test_the_same_request_has_the_same_answer(start: Start) -> None:
    site = await start()
    first, again = await chat(site, "k1"), await chat(site, "k1")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["content-type"] == "application/json"
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await completed(site) == 1
    assert (await site.settled()).requests == 1


async def test_another_request_is_refused(start: Start) -> None:
    site = await start()
    await chat(site, "k1")
    for answer in (
        await chat(site, "k1", "something else"),
        await chat(site, "k1", stream=True),
        await site.http.post("/v1/completions", json=ask(), headers={"idempotency-key": "k1"}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert await completed(site) == 1


async def test_while_the_first_is_answered_the_second_is_told_to_come_back(start: Start) -> None:
    site = await start(FakeScript(token_s=60))
    first = asyncio.create_task(chat(site, "k1", stream=True))
    await eventually(lambda: _running(site))
    second = await chat(site, "k1", stream=True)
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_in_flight")
    assert int(second.headers["retry-after"]) >= 1
    first.cancel()
    await asyncio.wait([first])
    await eventually(lambda: _claimable(site))


async def _running(site: Site) -> bool:
    return (await site.engine.status()).running == 1


async def _claimable(site: Site) -> bool:
    """The client of the first has left: its key is free, also for another request."""
    answer = await site.http.post(
        "/v1/chat/completions", json=ask(model="none"), headers={"idempotency-key": "k1"}
    )
    return bool(answer.json()["error"]["code"] == "model_not_found")


async def test_a_stream_is_replayed_as_a_stream(start: Start) -> None:
    site = await start()
    first, again = await chat(site, "k1", stream=True), await chat(site, "k1", stream=True)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert again.content.endswith(b"data: [DONE]\n\n")
    assert await completed(site) == 1


async def test_embeddings_and_completions(start: Start) -> None:
    site = await start()
    for path, body in (
        ("/v1/embeddings", {"model": EMBED, "input": "text"}),
        ("/v1/completions", {"model": CHAT, "prompt": "text"}),
    ):
        headers = {"idempotency-key": path}
        first, again = [await site.http.post(path, json=body, headers=headers) for _ in range(2)]
        assert (first.content, "idempotent-replayed" in again.headers) == (again.content, True)
    assert await completed(site) == 2


async def test_errors_before_the_call_are_not_kept(start: Start) -> None:
    site = await start(limits=Limits(tokens_per_minute=60))
    long = "w " * (MAX_CONTEXT + 1)
    assert [(await chat(site, "k1", long)).status_code for _ in range(2)] == [400, 400]
    assert (await chat(site, "k1", "now it fits", max_tokens=10)).status_code == 200
    refused = [await chat(site, "k2", max_tokens=50) for _ in range(2)]
    assert [answer.status_code for answer in refused] == [429, 429]
    assert "idempotent-replayed" not in refused[1].headers
    assert (await chat(site, "k2", "one", max_tokens=1)).status_code == 200


async def test_errors_of_a_call_that_cost_nothing_are_not_kept(start: Start) -> None:
    failing = Rule(contains="", failure=Failure("EngineFailed", "secret"))
    site = await start(FakeScript(rules=[failing]))
    answers = [await chat(site, "k1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "idempotent-replayed" not in answers[1].headers


async def test_a_stream_that_broke_is_kept_as_it_was(start: Start) -> None:
    breaking = Rule(contains="", reply="so so", failure=Failure("EngineFailed", "secret"), failure_after=1)
    site = await start(FakeScript(rules=[breaking]))
    first, again = [await chat(site, "k1", stream=True) for _ in range(2)]
    assert first.content == again.content
    assert b"engine_failed" in again.content
    assert again.headers["idempotent-replayed"] == "true"


async def test_an_error_that_cost_tokens_is_kept(start: Start) -> None:
    site = await start_helper(start)
    body = {"inputs": {"question": "please break"}}
    first, again = [
        await site.http.post("/v1/graphs/helper/runs", json=body, headers={"idempotency-key": "k1"})
        for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (503, 503)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-run-id"] == first.headers["x-run-id"]
    assert (await site.settled()).requests == 1


async def test_an_answer_that_is_too_large_is_not_done_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_ANSWER_BYTES", 100)
    site = await start()
    assert (await chat(site, "k1")).status_code == 200
    again = await chat(site, "k1")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotent_answer_not_kept")
    assert again.headers["x-should-retry"] == "false"
    assert await completed(site) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schlüssel".encode("latin-1")])
async def test_keys_that_are_none(start: Start, key: str) -> None:
    site = await start()
    headers: Any = {"idempotency-key": key}
    answer = await site.http.post("/v1/chat/completions", json=ask(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "idempotency-key")


async def test_a_key_counts_for_the_api_key_that_it_came_with(start: Start, keys: KeyStore) -> None:
    site = await start()
    mine = await chat(site, "k1")
    for tenant in ("acme", "rivals"):
        token, _ = await keys.create(tenant, "other")
        site.http.headers["authorization"] = f"Bearer {token}"
        theirs = await chat(site, "k1", "something else")
        assert theirs.status_code == 200
        assert theirs.content != mine.content
    assert await completed(site) == 3


async def test_the_sdk(start: Start) -> None:
    site = await start()
    messages: Any = [{"role": "user", "content": "hello"}]
    first, again = [
        await site.sdk.chat.completions.create(
            model=CHAT, messages=messages, extra_headers={"Idempotency-Key": "k1"}
        )
        for _ in range(2)
    ]
    assert first.id == again.id
    with pytest.raises(openai.UnprocessableEntityError):
        await site.sdk.completions.create(model=CHAT, prompt="hi", extra_headers={"Idempotency-Key": "k1"})


async def test_duplicates_at_several_gateways_are_done_once(start: Start) -> None:
    """Every key is sent many times at once, and again until each has its answer."""
    sites = [await start() for _ in range(GATEWAYS)]
    seen: list[set[bytes]] = [set() for _ in range(KEYS)]
    outcomes: Counter[int] = Counter()

    async def send(number: int, site: Site) -> bool:
        status, body = await _post(site, sites[0].token, f"key-{number}", f"say {number}")
        outcomes[status] += 1
        if status == 200:
            seen[number].add(body)
        return status == 200

    room = asyncio.Semaphore(AT_ONCE)

    async def insist(number: int, copy: int) -> None:
        async with room:
            while not await send(number, sites[copy % GATEWAYS]):
                await asyncio.sleep(0.05)

    await asyncio.gather(*(insist(number, copy) for copy in range(DUPLICATES) for number in range(KEYS)))
    assert sum([await completed(site) for site in sites]) == KEYS
    assert [len(bodies) for bodies in seen] == [1] * KEYS
    assert outcomes.keys() <= {200, 409}
    assert outcomes[200] == KEYS * DUPLICATES
    assert (await sites[0].settled()).requests == KEYS


async def _post(site: Site, token: str, key: str, text: str) -> tuple[int, bytes]:
    """Past the sockets: this is about the gateways."""
    sent: list[Any] = []
    body = b'{"model": "%b", "messages": [{"role": "user", "content": "%b"}]}' % (
        CHAT.encode(),
        text.encode(),
    )
    incoming = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for message in incoming:
            return message
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"authorization", f"Bearer {token}".encode()),
        (b"content-type", b"application/json"),
        (b"idempotency-key", key.encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    await site.app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)
