"""To callers a LoRA adapter is a model like any other: listed, allowed and limited by its own name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cluster.engines.fake import FakeEngine, FakeTokenCounter
from cluster.interface import ModelInfo
from cluster.pools.local import LocalPool
from serve_apps.gateway.limits import Allowance, Limits
from tests.serve_apps.conftest import CHAT, DEFAULT_MAX_TOKENS, MAX_CONTEXT, Site, Start, chat_pool

LEGAL, MEDICAL = "tiny-legal", "tiny-medical"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def pools(engine: FakeEngine) -> dict[str, LocalPool]:
    """A base and two adapters, on one engine."""
    await engine.adapters.declare({LEGAL: "legal", MEDICAL: "medical"})
    infos = [
        ModelInfo(name, "generate", MAX_CONTEXT, DEFAULT_MAX_TOKENS, base=CHAT) for name in (LEGAL, MEDICAL)
    ]
    adapters = {info.name: LocalPool(info, engine, FakeTokenCounter()) for info in infos}
    return {CHAT: chat_pool(engine)} | adapters


async def ask(site: Site, model: str, token: str | None = None, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body = {"model": model, "messages": [{"role": "user", "content": "hello there"}], **fields}
    return await site.http.post("/v1/chat/completions", json=body, headers=headers)


async def test_each_is_listed_with_what_it_was_trained_on(start: Start, pools: dict[str, LocalPool]) -> None:
    site = await start(pools=pools)
    listed = (await site.http.get("/v1/models")).json()["data"]
    assert {model["id"]: model.get("parent") for model in listed} == {CHAT: None, LEGAL: CHAT, MEDICAL: CHAT}
    one = (await site.http.get(f"/v1/models/{LEGAL}")).json()
    assert (one["object"], one["parent"], one["max_context"]) == ("model", CHAT, MAX_CONTEXT)


async def test_a_key_may_be_allowed_the_adapter_and_not_its_base(
    start: Start, pools: dict[str, LocalPool], engine: FakeEngine
) -> None:
    site = await start(pools=pools, models=[LEGAL])
    assert (await ask(site, LEGAL)).status_code == 200
    for other in (CHAT, MEDICAL):
        refused = await ask(site, other)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "model_not_allowed"
    listed = (await site.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == [LEGAL]
    assert engine.adapters.loaded == [LEGAL]


async def test_a_key_may_be_allowed_the_base_and_not_its_adapters(
    start: Start, pools: dict[str, LocalPool], engine: FakeEngine
) -> None:
    site = await start(pools=pools, models=[CHAT])
    assert (await ask(site, CHAT)).status_code == 200
    assert (await ask(site, LEGAL)).status_code == 403
    assert engine.adapters.loaded == []


async def test_an_adapter_has_limits_of_its_own(start: Start, pools: dict[str, LocalPool]) -> None:
    site = await start(pools=pools)
    allowance = Allowance(models={LEGAL: Limits(requests_per_minute=1)})
    token, _ = await site.deps.keys.create("acme", "limited", allowance=allowance)
    assert (await ask(site, LEGAL, token)).status_code == 200
    assert (await ask(site, LEGAL, token)).status_code == 429
    for other in (CHAT, MEDICAL):
        assert (await ask(site, other, token)).status_code == 200


async def test_an_adapter_answers_as_itself(start: Start, pools: dict[str, LocalPool]) -> None:
    site = await start(pools=pools)
    answers = {name: (await ask(site, name)).json() for name in pools}
    assert {name: answer["model"] for name, answer in answers.items()} == {name: name for name in pools}
    said = {answer["choices"][0]["message"]["content"] for answer in answers.values()}
    assert len(said) == len(pools)
