"""Tokens of prompts and messages over HTTP, in vLLM's shapes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cluster.messages import Generate
from cluster.tokens import ModelTokenCounter, Tokens
from serve_apps.gateway.generating import LARGE_PROMPT_CHARS
from serve_apps.gateway.limits import Limits
from tests.cluster.test_tokens import BOS, save_model
from tests.serve_apps.conftest import CHAT, EMBED, MAX_CONTEXT, Site, Start

TEXT = "The capital of France is Paris. ☃"
MESSAGES = [{"role": "user", "content": "The capital?"}]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenCounter:
    return ModelTokenCounter(save_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
async def exact(start: Start, counter: ModelTokenCounter) -> Site:
    """A gateway that has the tokenizer of its chat model, and not that of the other."""
    return await start(tokenizers={CHAT: counter})


async def post(site: Site, path: str, **body: Any) -> Any:
    response = await site.http.post(path, json={"model": CHAT, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_there_and_back(exact: Site) -> None:
    there = await post(exact, "/v1/tokenize", prompt=TEXT, add_special_tokens=False)
    assert set(there) == {"count", "max_model_len", "tokens"}
    assert (there["count"], there["max_model_len"]) == (len(there["tokens"]), MAX_CONTEXT)
    assert await post(exact, "/v1/detokenize", tokens=there["tokens"]) == {"prompt": TEXT}
    whole = await post(exact, "/v1/tokenize", prompt=TEXT, return_token_strs=True)
    assert whole["tokens"][1:] == there["tokens"]
    assert whole["token_strs"][0] == BOS
    assert len(whole["token_strs"]) == whole["count"]


async def test_messages_are_as_the_template_has_them(exact: Site, counter: ModelTokenCounter) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    plain = await post(exact, "/v1/tokenize", messages=MESSAGES)
    assert "assistant" in (await post(exact, "/v1/detokenize", tokens=plain["tokens"]))["prompt"]
    assert (await post(exact, "/v1/tokenize", messages=MESSAGES, tools=tools))["count"] > plain["count"]
    counted = await exact.anthropic.messages.count_tokens(
        model=CHAT, messages=[{"role": "user", "content": "The capital?"}]
    )
    assert counted.input_tokens == plain["count"]


async def test_they_take_a_request_and_no_tokens(start: Start, counter: ModelTokenCounter) -> None:
    site = await start(tokenizers={CHAT: counter}, limits=Limits(requests_per_minute=2, tokens_per_minute=1))
    tokens = (await post(site, "/v1/tokenize", prompt=TEXT))["tokens"]
    await post(site, "/v1/detokenize", tokens=tokens)
    totals = await site.settled()
    assert (totals.requests, totals.tokens) == (2, 0)
    assert (await site.http.post("/v1/tokenize", json={"model": CHAT, "prompt": "x"})).status_code == 429


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("/v1/tokenize", {}, "prompt", "either 'prompt' or 'messages'"),
        ("/v1/tokenize", {"prompt": "x", "messages": MESSAGES}, "prompt", "either"),
        ("/v1/tokenize", {"prompt": "x", "tools": []}, "tools", "goes with 'messages'"),
        (
            "/v1/tokenize",
            {"messages": MESSAGES, "add_special_tokens": True},
            "add_special_tokens",
            "'prompt'",
        ),
        ("/v1/tokenize", {"prompt": "x", "chat_template": "{{ 1 }}"}, "chat_template", "Unknown field"),
        ("/v1/tokenize", {"prompt": "x", "model": EMBED}, "model", "only whoever serves it has it"),
        ("/v1/detokenize", {"tokens": [1, -1]}, "tokens[1]", ">= 0"),
        ("/v1/detokenize", {"tokens": [1, 999_999]}, "tokens[1]", "not 999999"),
        (
            "/v1/tokenize",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
                        ],
                    }
                ]
            },
            "messages",
            "only the engine knows",
        ),
    ],
)
async def test_refusals(exact: Site, path: str, body: dict[str, Any], param: str, says: str) -> None:
    response = await exact.http.post(path, json={"model": CHAT, **body})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert says in error["message"]


async def test_a_key_for_other_models(start: Start, counter: ModelTokenCounter) -> None:
    site = await start(tokenizers={CHAT: counter}, models=[EMBED])
    for path, body in (("/v1/tokenize", {"prompt": "x"}), ("/v1/detokenize", {"tokens": [1]})):
        assert (await site.http.post(path, json={"model": CHAT, **body})).status_code == 403
        assert (await site.http.post(path, json={"model": "nobody", **body})).status_code == 404


async def test_large_ones_are_made_aside(
    exact: Site, counter: ModelTokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: list[str] = []
    encode = counter.encode

    def watched(call: Generate, *, special: bool = True) -> Tokens:
        made_in.append(threading.current_thread().name)
        return encode(call, special=special)

    monkeypatch.setattr(counter, "encode", watched)
    await post(exact, "/v1/tokenize", prompt="x" * (LARGE_PROMPT_CHARS + 1))
    await post(exact, "/v1/tokenize", prompt="x")
    assert [name == threading.main_thread().name for name in made_in] == [False, True]


async def test_a_scripted_engine_has_no_way_back(site: Site) -> None:
    assert (await post(site, "/v1/tokenize", prompt="one two"))["count"] == 2
    response = await site.http.post("/v1/detokenize", json={"model": CHAT, "tokens": [1]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tokens")
