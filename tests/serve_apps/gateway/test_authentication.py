"""Who asks, and whether it may ask for this, on every kind of route."""

from __future__ import annotations

import httpx
import pytest
from msgspec.structs import replace

from serve_apps.gateway.authentication import Authenticator, token_of
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.errors import Unauthorized
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from tests.serve_apps.conftest import CHAT, Site

HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "hello"}]}


async def test_a_key_is_taken_from_either_header(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as anyone:
        for headers in (
            {"authorization": f"Bearer {site.token}"},
            {"authorization": f"bearer   {site.token}"},
            {"x-api-key": site.token},
            {"x-api-key": site.token, "authorization": f"Bearer {site.token}"},
        ):
            assert (await anyone.get("/v1/models", headers=headers)).status_code == 200
            assert (await anyone.post("/v1/chat/completions", headers=headers, json=HELLO)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({b"authorization": b""}, "missing_api_key"),
        ({b"authorization": b"Bearer"}, "missing_api_key"),
        ({b"authorization": b"Basic abc"}, "missing_api_key"),
        ({b"authorization": b"Basic abc", b"x-api-key": b"k"}, "missing_api_key"),
        ({b"x-api-key": b"  "}, "missing_api_key"),
        ({b"authorization": b"Bearer a", b"x-api-key": b"b"}, "invalid_api_key"),
    ],
)
def test_headers_that_show_no_key(headers: dict[bytes, bytes], code: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        token_of(headers)
    assert refused.value.code == code


async def test_a_caller_has_the_allowances_of_all_three(keys: KeyStore, site: Site) -> None:
    directory = site.deps.directory
    wide, middle, own = (Allowance(Limits(tokens_per_day=number)) for number in (3, 2, 1))
    await directory.create_organisation("acme", "Acme", allowance=wide)
    await directory.create_team("acme", "research", "R", allowance=middle)
    token, made = await keys.create("acme", "k", team="research", allowance=own)
    caller = await Authenticator(keys, directory).authenticate({b"x-api-key": token.encode()})
    assert [(level.kind, level.id, level.allowance) for level in caller.levels()] == [
        ("organisation", "acme", wide),
        ("team", "research", middle),
        ("key", made.key_id, own),
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 200),
        (f"/v1/models/{CHAT}", 403),
        ("/v1/contexts/none", 403),
        ("/v1/runs", 403),
        ("/v1//models", 404),
    ],
)
async def test_endpoints_hold_for_the_routes_of_fastapi(
    keys: KeyStore, site: Site, path: str, status: int
) -> None:
    token, _ = await keys.create("acme", "narrow", endpoints=["/v1/chat/*", "/v1/models"])
    answer = await site.http.get(path, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "endpoint_not_allowed"
        assert repr(path) in answer.json()["error"]["message"]
        assert "/v1/chat/*, /v1/models" in answer.json()["error"]["message"]


async def test_endpoints_hold_for_the_hot_routes(keys: KeyStore, site: Site) -> None:
    token, _ = await keys.create("acme", "narrow", endpoints=["/v1/chat/*", "/v1/runs"])
    headers = {"authorization": f"Bearer {token}"}
    assert (await site.http.post("/v1/chat/completions", json=HELLO, headers=headers)).status_code == 200
    for path in ("/v1/completions", "/v1/embeddings", "/v1/graphs/any/runs", "/v1/runs/any/resume"):
        answer = await site.http.post(path, json={}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "endpoint_not_allowed"), path
    nothing, _ = await keys.create("acme", "nothing", endpoints=[])
    answer = await site.http.get("/v1/models", headers={"authorization": f"Bearer {nothing}"})
    assert answer.status_code == 403
    assert "none" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["organisation", "team"])
async def test_callers_of_what_is_suspended_or_deleted_are_refused(
    site: Site, directory: Directory, kind: str
) -> None:
    await directory.create_organisation("acme", "Acme")
    await directory.create_team("acme", "default", "All")
    assert (await site.http.get("/v1/models")).status_code == 200
    if kind == "team":
        await directory.change_team("acme", "default", lambda each: replace(each, suspended=True))
    else:
        await directory.change_organisation("acme", lambda each: replace(each, suspended=True))
    answer = await site.http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, f"{kind}_suspended")
    await (
        directory.delete_team("acme", "default") if kind == "team" else directory.delete_organisation("acme")
    )
    answer = await site.http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, f"{kind}_deleted")


@pytest.fixture
def directory(site: Site) -> Directory:
    """The gateway's own, which sees its changes at once."""
    return site.deps.directory


async def test_uses_are_noted_by_the_gateway(keys: KeyStore, site: Site) -> None:
    await site.http.get("/v1/models")
    noted = None
    while noted is None:
        record = await keys.get(site.key.key_id)
        assert record is not None
        noted = record.last_used
    assert noted >= site.key.created - 1
