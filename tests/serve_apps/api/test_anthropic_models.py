"""`/v1/models` as Anthropic's SDK lists it, on the path that OpenAI's has too."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic.types import ModelInfo

from tests.serve_apps.api.test_graphs import Scripted, info
from tests.serve_apps.conftest import CHAT, EMBED, MAX_CONTEXT, Site, Start

HEADER = {"anthropic-version": "2023-06-01"}


async def test_both_sdks_list_the_same(start: Start) -> None:
    site = await start(graphs={"scripted": info()}, runner=Scripted())
    theirs = [model.id async for model in site.anthropic.models.list()]
    assert theirs == [model.id async for model in site.sdk.models.list()] == [CHAT, EMBED, "graph/scripted"]
    one = await site.anthropic.models.retrieve(CHAT)
    assert (one.id, one.max_input_tokens, one.created_at.year) == (CHAT, MAX_CONTEXT, 2023)
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        await site.anthropic.models.retrieve("nobody")


async def test_a_model_says_what_the_sdk_has_and_no_more(start: Start) -> None:
    site = await start(graphs={"scripted": info()}, runner=Scripted())
    page = (await site.http.get("/v1/models", headers=HEADER)).json()
    assert {key: value for key, value in page.items() if key != "data"} == {
        "has_more": False,
        "first_id": CHAT,
        "last_id": "graph/scripted",
    }
    for sent in page["data"]:
        parsed = ModelInfo.model_validate(sent)
        assert parsed.model_dump(mode="json", exclude_unset=True) == sent
        assert not parsed.model_extra


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({"limit": 2}, [CHAT, EMBED], True),
        ({"limit": 2, "after_id": EMBED}, ["graph/scripted"], False),
        ({"limit": 1, "before_id": "graph/scripted"}, [EMBED], True),
        ({"before_id": EMBED}, [CHAT], False),
        ({"after_id": "graph/scripted"}, [], False),
    ],
)
async def test_pages(start: Start, query: dict[str, Any], names: list[str], more: bool) -> None:
    site = await start(graphs={"scripted": info()}, runner=Scripted())
    page = (await site.http.get("/v1/models", params=query, headers=HEADER)).json()
    assert ([model["id"] for model in page["data"]], page["has_more"]) == (names, more)
    assert page["first_id"] == (names[0] if names else None)
    if "limit" in query and "before_id" not in query:
        told = [model.id async for model in site.anthropic.models.list(limit=query["limit"])]
        assert told == [CHAT, EMBED, "graph/scripted"]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"after_id": "nobody"}, {"before_id": ""}]
)
async def test_pages_that_are_not_there(site: Site, query: dict[str, str]) -> None:
    response = await site.http.get("/v1/models", params=query, headers=HEADER)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
