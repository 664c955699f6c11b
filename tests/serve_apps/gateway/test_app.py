"""The gateway's front: who may come in, bounds of every request, and every error in OpenAI's shape."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest
from ray.serve._private.http_util import RequestIdMiddleware
from structlog.testing import capture_logs

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.interface import ModelInfo
from cluster.pools.local import LocalPool
from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Limits
from serve_apps.gateway.quotas import QuotaLedger
from serve_apps.settings import GatewaySettings
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, eventually

HOT = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/graphs/any/runs"]
COLD = ["/v1/models", "/v1/models/x", "/v1/graphs", "/v1/graphs/x", "/v1/contexts/x"]
ASK: list[Any] = [{"role": "user", "content": "hello there"}]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object, whose shape every client may rely on."""
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", [*HOT, *COLD])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer sk-not-a-key", "invalid_api_key"),
        ("Bearer cgh_0011223344556677_x" + "y" * 5000, "invalid_api_key"),
        ("Bearer ключ".encode(), "invalid_api_key"),
    ],
)
async def test_no_good_key(site: Site, path: str, header: str | bytes | None, code: str) -> None:
    headers: dict[str, str | bytes] = {} if header is None else {"authorization": header}
    async with httpx.AsyncClient(base_url=site.url) as http:
        send = http.post if path in HOT else http.get
        response = await send(path, headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = error_of(response)
    assert error["code"] == code
    assert "not-a-key" not in response.text


async def test_expired_and_revoked_keys(site: Site, keys: KeyStore) -> None:
    expired, _ = await keys.create("acme", "old", expires=time.time() - 1)
    response = await site.http.get("/v1/models", headers={"authorization": f"Bearer {expired}"})
    assert (response.status_code, error_of(response)["code"]) == (401, "expired_api_key")
    revoked, record = await keys.create("acme", "bad")
    await keys.revoke(record.key_id)
    response = await site.http.get("/v1/models", headers={"authorization": f"Bearer {revoked}"})
    assert (response.status_code, error_of(response)["code"]) == (401, "revoked_api_key")


async def test_key_for_other_models(start: Start) -> None:
    site = await start(models=[EMBED])
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await site.sdk.chat.completions.create(model=CHAT, messages=ASK)
    assert caught.value.code == "model_not_allowed"
    assert [model.id async for model in site.sdk.models.list()] == [EMBED]
    assert (await site.sdk.embeddings.create(model=EMBED, input="a")).data


async def test_unknown_model_suggests_the_nearest(start: Start) -> None:
    site = await start()
    response = await site.http.post("/v1/chat/completions", json={"model": "tiny-chta", "messages": ASK})
    assert response.status_code == 404
    error = error_of(response)
    assert error["code"] == "model_not_found"
    assert f"'{CHAT}'" in error["message"]
    limited = await start(models=[EMBED])
    hidden = await limited.http.post("/v1/chat/completions", json={"model": "tiny-chta", "messages": ASK})
    assert CHAT not in hidden.text


async def test_model_for_another_task(site: Site) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await site.sdk.chat.completions.create(model=EMBED, messages=ASK)
    assert caught.value.code == "model_not_supported"
    with pytest.raises(openai.BadRequestError):
        await site.sdk.embeddings.create(model=CHAT, input="a")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/graphs/any/runs", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/v1/graphs/a/b/runs", 404),
        ("GET", "/../etc/passwd", 404),
    ],
)
async def test_routes_that_are_not_there(site: Site, method: str, path: str, status: int) -> None:
    response = await site.http.request(method, path)
    assert response.status_code == status
    error_of(response)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b"\xff\xfe", {}, 400, "invalid_json"),
        (b'{"model": "\xff", "messages": []}', {}, 400, "invalid_json"),
        (b"[" * 100_000, {}, 400, "invalid_value"),
        (b"{}", {}, 400, "missing_field"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b"x" * 5000, {}, 413, "body_too_large"),
    ],
)
async def test_bodies_that_cannot_be_read(
    start: Start, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    site = await start(settings=GatewaySettings(max_body_bytes=4096 if status == 413 else 1 << 20))
    headers = {"content-type": "application/json", **headers}
    response = await site.http.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == status
    assert error_of(response)["code"] == code


async def test_a_body_of_unsaid_length_is_bounded_too(start: Start) -> None:
    site = await start(settings=GatewaySettings(max_body_bytes=4096))

    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    response = await site.http.post("/v1/chat/completions", content=pieces(), headers=headers)
    assert response.status_code == 413


async def test_request_id_is_echoed_when_clean(site: Site) -> None:
    for path in ("/v1/models", "/healthz", "/v1/nothing"):
        response = await site.http.get(path, headers={"x-request-id": "trace-42"})
        assert response.headers.get_list("x-request-id") == ["trace-42"]
    ours = await site.http.get("/healthz", headers={"x-request-id": "a\tb <script>"})
    assert len(ours.headers["x-request-id"]) == 32
    chat = await site.http.post("/v1/chat/completions", json={}, headers={"x-request-id": "trace-43"})
    assert chat.headers["x-request-id"] == "trace-43"


@pytest.mark.parametrize("sent", [None, "trace-42"])
async def test_behind_serve_an_answer_says_its_id_once(start: Start, sent: str | None) -> None:
    site = await start(says_ids=False)
    transport = httpx.ASGITransport(app=RequestIdMiddleware(site.app))
    headers = {"authorization": f"Bearer {site.token}"} | ({} if sent is None else {"x-request-id": sent})
    async with httpx.AsyncClient(transport=transport, base_url=site.url, headers=headers) as http:
        for path in ("/v1/models", "/v1/nothing"):
            (said,) = (await http.get(path)).headers.get_list("x-request-id")
            assert said == (sent or said) != ""
        refused = await http.post("/v1/messages", json={})
        assert refused.headers.get_list("x-request-id") == [refused.headers["request-id"]]
        assert refused.json()["request_id"] == refused.headers["request-id"]


async def test_a_repeated_request_id_is_charged_each_time(start: Start) -> None:
    site = await start(limits=Limits(requests_per_minute=2))
    headers = {"x-request-id": "same"}
    body = {"model": CHAT, "messages": ASK}
    statuses = [
        (await site.http.post("/v1/chat/completions", json=body, headers=headers)).status_code
        for _ in range(3)
    ]
    assert statuses == [200, 200, 429]


async def test_rate_limit_headers(start: Start) -> None:
    site = await start(limits=Limits(requests_per_minute=2, tokens_per_minute=100))
    first = await site.chat()
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "100"
    assert first.headers["x-ratelimit-remaining-tokens"] == str(100 - 2 - 32)
    assert first.headers["x-ratelimit-reset-tokens"].endswith("s")
    await site.settled()
    assert (await site.chat(stream=True)).headers["x-ratelimit-remaining-requests"] == "0"
    refused = await site.chat()
    assert refused.status_code == 429
    error = error_of(refused)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 65
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError):
        await site.sdk.chat.completions.create(model=CHAT, messages=ASK)
    assert (await site.settled()).requests == 2


async def test_a_call_that_can_never_fit(start: Start) -> None:
    site = await start(limits=Limits(tokens_per_minute=50))
    response = await site.chat(max_tokens=60)
    assert response.status_code == 429
    assert error_of(response)["code"] == "request_exceeds_limit"
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_named_no_bound_is_cut_to_what_is_left(start: Start, stream: bool) -> None:
    site = await start(FakeScript(output_tokens=100), limits=Limits(tokens_per_day=60, tokens_per_minute=100))
    assert (await site.chat("one two three four", stream=stream)).status_code == 200
    assert (await site.settled()).tokens == 4 + 32
    assert (await site.chat("one two", stream=stream)).status_code == 200
    assert (await site.settled()).tokens == 36 + 2 + 22
    refused = await site.chat("one", stream=stream)
    assert refused.headers["ratelimit-policy"] == '"key-tokens-day";q=60;w=86400;qu="tokens"'
    assert error_of(refused)["code"] == "rate_limit_exceeded"


async def test_choices_are_cut_alike(start: Start) -> None:
    site = await start(FakeScript(output_tokens=100), limits=Limits(tokens_per_minute=80))
    answer = (await site.chat("one two", n=4)).json()
    assert answer["usage"]["completion_tokens"] == 4 * 19
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 4
    assert (await site.settled()).tokens == 2 + 4 * 19


async def test_a_bound_that_the_client_named_is_refused_with_what_would_fit(start: Start) -> None:
    site = await start(limits=Limits(tokens_per_minute=50))
    refused = await site.chat("one two", max_tokens=60)
    assert "max_tokens up to 48 would fit" in error_of(refused)["message"]
    assert refused.headers["ratelimit"] == '"key-tokens-minute";r=50;t=0'
    assert (await site.chat("one two", max_tokens=48)).status_code == 200


async def test_no_overspend_at_once(start: Start) -> None:
    site = await start(limits=Limits(tokens_per_minute=500))
    calls = [site.chat("one two three", max_tokens=72) for _ in range(20)]
    statuses = [response.status_code for response in await asyncio.gather(*calls)]
    assert statuses.count(200) >= 6
    assert (await site.settled()).tokens <= 500
    assert set(statuses) == {200, 429}


@pytest.mark.parametrize("stream", [False, True])
async def test_deadline(start: Start, stream: bool) -> None:
    site = await start(FakeScript(first_token_s=30))
    response = await site.http.post(
        "/v1/chat/completions",
        json={"model": CHAT, "messages": ASK, "stream": stream, "max_tokens": 10},
        headers={"x-request-timeout": "1.5"},
    )
    assert response.status_code == 408
    assert error_of(response)["code"] == "request_timeout"
    totals = await site.settled()
    assert totals.tokens == (2 if stream else 12)
    assert (await site.engine.status()).aborted == 1
    assert (await site.engine.status()).running == 0


async def test_deadline_in_mid_stream(start: Start) -> None:
    site = await start(
        FakeScript(token_s=0.4, output_tokens=1000), settings=GatewaySettings(default_timeout_s=3.0)
    )
    response = await site.chat(stream=True, max_tokens=100)
    assert response.status_code == 200
    assert "request_timeout" in response.text.split("\n\n")[-2]
    assert "[DONE]" not in response.text
    assert 2 < (await site.settled()).tokens <= 2 + 12


async def test_deadline_while_the_body_comes(start: Start) -> None:
    site = await start(settings=GatewaySettings(default_timeout_s=0.1))

    async def stalled() -> Any:
        yield b'{"model":'
        await asyncio.sleep(1.0)
        yield b'"x"}'

    headers = {"content-type": "application/json"}
    response = await site.http.post("/v1/chat/completions", content=stalled(), headers=headers)
    assert response.status_code == 408


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", ""])
async def test_bad_deadline(site: Site, value: str) -> None:
    response = await site.http.get("/v1/models", headers={"x-request-timeout": value})
    assert response.status_code == 400
    assert error_of(response)["param"] == "x-request-timeout"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_aborts_the_engine_and_settles(start: Start, stream: bool) -> None:
    script = FakeScript(token_s=0.3, output_tokens=100_000) if stream else FakeScript(first_token_s=60)
    site = await start(script)
    body = {"model": CHAT, "messages": ASK, "stream": stream, "max_tokens": 190}

    async def seen() -> bool:
        return (await site.engine.status()).running == 1

    async def aborted() -> bool:
        return (await site.engine.status()).aborted == 1

    async with httpx.AsyncClient(base_url=site.url, headers=site.http.headers) as leaving:
        if stream:
            async with leaving.stream("POST", "/v1/chat/completions", json=body) as response:
                await anext(response.aiter_bytes())
        else:
            asking = asyncio.create_task(leaving.post("/v1/chat/completions", json=body))
            await eventually(seen)
            asking.cancel()
            await asyncio.wait([asking])
    await eventually(aborted)
    totals = await site.settled()
    assert totals.requests == 1
    assert 2 < totals.tokens < 100 if stream else totals.tokens == 192


async def test_heartbeats_fill_silence(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.http.HEARTBEAT_S", 0.05)
    site = await start(FakeScript(token_s=0.3, rules=[Rule(contains="hello", reply="one two")]))
    response = await site.chat(stream=True)
    assert response.text.count(": keep-alive\n\n") >= 2
    stream = await site.sdk.chat.completions.create(model=CHAT, messages=ASK, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two"


class _Unready(LocalPool):
    """A pool that is starting until told otherwise."""

    started = False

    async def ready(self) -> bool:
        return self.started


async def test_starting(start: Start) -> None:
    engine = FakeEngine()
    done = chat_pool(engine)
    starting = _Unready(ModelInfo("late", "generate", 100, 10), engine, FakeTokenCounter())
    site = await start(pools={CHAT: done, "late": starting}, ready=False)
    report = await site.http.get("/readyz")
    assert report.status_code == 503
    assert report.json() == {
        "status": "starting",
        "parts": {f"model {CHAT}": "ready", "model late": "starting"},
    }
    assert (await site.http.get("/healthz")).json() == {"status": "ok"}
    assert (await site.chat()).status_code == 200
    refused = await site.chat(model="late")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "model late" in error_of(refused)["message"]
    starting.started = True

    async def all_ready() -> bool:
        return (await site.http.get("/readyz")).status_code == 200

    await eventually(all_ready)
    assert (await site.chat(model="late")).status_code == 200


async def test_store_is_out(start: Start, one_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await start()

    async def out(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("no answer within 100 ms at unix:///secret")

    monkeypatch.setattr(QuotaLedger, "reserve", out)
    response = await site.chat()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert error_of(response)["code"] == "store_unavailable"
    monkeypatch.setattr(KeyStore, "authenticate", out)
    assert (await site.http.get("/v1/models")).status_code == 503
    assert (await site.chat()).status_code == 503


async def test_a_settlement_is_tried_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await start()
    settling, failures = QuotaLedger.settling, iter([1, 2])

    def flaky(*args: Any) -> asyncio.Future[Any]:
        if next(failures, None):
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("busy"))
            return failed
        return settling(*args)

    monkeypatch.setattr(QuotaLedger, "settling", flaky)
    used = (await site.chat()).json()["usage"]["total_tokens"]
    assert (await site.settled()).tokens == used


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
async def test_unforeseen_errors_say_nothing_but_the_request_id(
    site: Site, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError(f"secret of {site.token}")

    monkeypatch.setattr(KeyStore, "authenticate", broken)
    send = site.http.get if path == "/v1/models" else site.http.post
    with capture_logs() as logged:
        response = await send(path)
    assert response.status_code == 500
    error = error_of(response)
    assert error["code"] == "internal_error"
    assert response.headers["x-request-id"] in error["message"]
    assert "secret" not in response.text
    failed = [entry for entry in logged if entry["event"] == "request_failed"]
    assert [entry["error"] for entry in failed] == ["RuntimeError"]
    assert "secret" not in str(logged)
    assert site.token not in str(logged)


async def test_models(site: Site) -> None:
    listed = [model async for model in site.sdk.models.list()]
    assert [model.id for model in listed] == [CHAT, EMBED]
    assert listed[0].object == "model"
    assert (await site.sdk.models.retrieve(CHAT)).created == 1_700_000_000
    with pytest.raises(openai.NotFoundError):
        await site.sdk.models.retrieve("nothing")


async def test_the_document_tells_of_every_route(site: Site) -> None:
    document = (await site.http.get("/openapi.json")).json()
    for path in HOT:
        assert "post" in document["paths"][path.replace("/any/", "/{name}/")]
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ChatBody")
    assert "contextId" in document["components"]["schemas"]["ChatBody"]["properties"]
    references = {
        part.split('"')[0] for part in str(document).replace("'", '"').split("#/components/schemas/")[1:]
    }
    assert references <= set(document["components"]["schemas"])
