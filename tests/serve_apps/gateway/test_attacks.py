"""Attacks on who may call, against a gateway that takes keys and tokens: none succeeds, none costs a 5xx."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest

from runtime.store.client import Store
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.oidc.persons import Persons
from tests.serve_apps.api.durable import desks
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start
from tests.serve_apps.elsewhere import attempts, listening
from tests.serve_apps.gateway.oidc.provider import FakeProvider
from tests.serve_apps.gateway.oidc.test_persons import FORGED

HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "hello"}]}
HOT, COLD = "/v1/chat/completions", "/v1/models"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().serving() as serving:
        yield serving


@pytest.fixture
async def open_site(start: Start, provider: FakeProvider) -> AsyncIterator[Site]:
    site = await start(persons=Persons([provider.spec(organisation={"claim": "org"})]))
    async with AsyncExitStack() as ending:
        site.http = await ending.enter_async_context(httpx.AsyncClient(base_url=site.url))
        yield site


async def asked(site: Site, shown: str | bytes, **headers: str) -> list[int]:
    """The statuses of both kinds of routes."""
    given = httpx.Headers(
        [(b"authorization", b"Bearer " + (shown if isinstance(shown, bytes) else shown.encode()))]
    )
    given.update(headers)
    return [
        (await site.http.post(HOT, json=HELLO, headers=given)).status_code,
        (await site.http.get(COLD, headers=given)).status_code,
    ]


async def test_a_person_calls_as_a_key_does(open_site: Site, provider: FakeProvider) -> None:
    assert await asked(open_site, provider.token(org="acme")) == [200, 200]
    refused = await open_site.http.get(COLD, headers={"authorization": f"Bearer {provider.token()}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "person_not_mapped")


async def test_forged_tokens(open_site: Site, provider: FakeProvider) -> None:
    for attack, forge in FORGED.items():
        assert await asked(open_site, forge(provider)) == [401, 401], attack


async def test_without_providers_no_token_counts(site: Site, provider: FakeProvider) -> None:
    assert await asked(site, provider.token(org="acme")) == [401, 401]


NO_KEYS: Sequence[str | bytes] = (
    "' OR '1'='1",
    "cgh_' OR 1=1 --_x",
    "cgh_" + "0" * 32 + "_'; DROP TABLE keys; --",
    "cgh_" + "*" * 32 + "_x",
    "cgh_" + "0" * 32 + "_" + "A" * 60_000,
    b"\xff\xfe\x01x",
    "cgh_\t\x7f_x",
    "}{acme}:apikey:",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "null",
    ".",
    "..",
    "a.b.c.d",
)


async def test_keys_that_are_something_else(open_site: Site) -> None:
    for shown in NO_KEYS:
        assert set(await asked(open_site, shown)) <= {400, 401, 431}, shown


async def test_random_keys_and_tokens(open_site: Site, provider: FakeProvider) -> None:
    chance = random.Random(7)
    good = [open_site.token, provider.token(org="acme")]

    def mangled() -> str:
        text = list(chance.choice(good))
        for _ in range(chance.randint(1, 4)):
            text[chance.randrange(len(text) - 20)] = chr(chance.randint(33, 126))
        return "".join(text)

    shown = [each for each in (mangled() for _ in range(150)) if each not in good]
    statuses = await asyncio.gather(
        *(open_site.http.get(COLD, headers={"authorization": f"Bearer {each}"}) for each in shown)
    )
    assert {answer.status_code for answer in statuses} == {401}


ODD_HEADERS: Sequence[dict[str, str]] = (
    {"host": "evil.example"},
    {"host": "127.0.0.1@evil.example"},
    {"host": "localhost:99999"},
    {"x-forwarded-host": "evil.example"},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-user": "root"},
    {"x-original-url": "/healthz"},
    {"x-rewrite-url": "/healthz"},
    {"x-http-method-override": "GET"},
    {"forwarded": "for=127.0.0.1;host=localhost"},
    {"x-remote-user": "admin"},
    {"cookie": "session=admin"},
)


async def test_no_other_header_lets_anybody_in(open_site: Site) -> None:
    for headers in ODD_HEADERS:
        assert await asked(open_site, "nothing", **headers) == [401, 401], headers
        answers = [
            await open_site.http.post(HOT, json=HELLO, headers=headers),
            await open_site.http.get(COLD, headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [401, 401], headers
        assert not any("evil" in answer.text or "evil" in str(answer.headers) for answer in answers)
        assert await asked(open_site, open_site.token, **headers) == [200, 200], headers


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1/../v1/models",
        "/v1/%6dodels",
        "/v1/models/",
        "/V1/MODELS",
        "/v1/models;x",
        "/v1/models%00",
    ],
)
async def test_no_spelling_of_a_path_passes_a_list_of_endpoints(
    open_site: Site, keys: KeyStore, path: str
) -> None:
    token, _ = await keys.create("acme", "narrow", endpoints=["/v1/chat/*"])
    answer = await open_site.http.get(path, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code in {307, 403, 404}


async def test_what_is_of_one_organisation_is_of_no_other(
    open_site: Site, keys: KeyStore, provider: FakeProvider
) -> None:
    mine = {"authorization": f"Bearer {open_site.token}"}
    kept = await open_site.http.post(HOT, json={**HELLO, "contextId": "c-1"}, headers=mine)
    assert kept.status_code == 200
    theirs, _ = await keys.create("rival", "spy", role="owner")
    for token in (
        theirs,
        provider.token(org="rival"),
        provider.token(org="Acme"),
        provider.token(org="acme."),
    ):
        headers = {"authorization": f"Bearer {token}"}
        assert (await open_site.http.get("/v1/contexts/c-1", headers=headers)).status_code == 404
        deleted = await open_site.http.delete("/v1/contexts/c-1", headers=headers)
        assert deleted.json().get("deleted") is False
    for odd in ("acme}:x", "{acme}", "acme:quota", "acme\n", " acme", ["acme", "rival"], {"a": 1}, None):
        headers = {"authorization": f"Bearer {provider.token(org=odd)}"}
        assert (await open_site.http.get("/v1/contexts/c-1", headers=headers)).status_code == 403
    assert (await open_site.http.get("/v1/contexts/c-1", headers=mine)).status_code == 200


async def test_no_field_makes_the_gateway_ask_another_host(start: Start, one_store: Store) -> None:
    """Refused, but for names in what is passed on as it is: metadata, and schemas, which nobody loads."""
    told: dict[int, int] = {}
    async with desks(start, one_store) as start_one, listening() as listener:
        http = (await start_one()).site.http
        for path, body in attempts(CHAT, EMBED, listener.url):
            answer = await http.post(path, json=body, timeout=120)
            assert answer.status_code < 500, (path, body, answer.text)
            assert answer.status_code >= 400 or {"metadata", "response_format"} & set(body), (path, body)
            told[answer.status_code] = told.get(answer.status_code, 0) + 1
        assert listener.asked == []
    assert sum(told.values()) > 150
    assert told[400] > 100


async def test_claims_make_nobody_more_than_the_config_does(open_site: Site, provider: FakeProvider) -> None:
    claimed = {
        "role": "admin",
        "tenant": "rival",
        "team": "x",
        "functions": True,
        "models": None,
        "id": "root",
    }
    token = provider.token(org="acme", **claimed)
    caller = await Persons([provider.spec(organisation={"claim": "org"})]).authenticate(token)
    assert (caller.tenant, caller.team, caller.role, caller.functions) == ("acme", "default", "member", False)
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert payload["role"] == "admin"
